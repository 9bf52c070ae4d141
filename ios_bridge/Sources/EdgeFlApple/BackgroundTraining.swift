// SPDX-License-Identifier: Apache-2.0
// Background tasks are an iPhone's; a Mac, which runs the tests on Core ML, has none.
#if canImport(BackgroundTasks)
import BackgroundTasks
import EdgeFl
import Foundation

/// Trains in a background processing task: while the phone charges and idles, until iOS wants it back.
///
/// The identifier belongs into Info.plist under `BGTaskSchedulerPermittedIdentifiers`, and `processing` under
/// `UIBackgroundModes`.
public final class BackgroundTraining {
    private let identifier: String
    private let work: (AppleDevice) throws -> Void

    /// - Parameter work: takes part in rounds, with the device it is given, and returns when that stops.
    public init(identifier: String, work: @escaping (AppleDevice) throws -> Void) {
        self.identifier = identifier
        self.work = work
    }

    /// To be called before the app has finished launching.
    public func register() {
        BGTaskScheduler.shared.register(forTaskWithIdentifier: identifier, using: nil) { task in
            self.run(task)
        }
    }

    /// Asks iOS for a time, not before tomorrow.
    public func schedule() throws {
        let request = BGProcessingTaskRequest(identifier: identifier)
        request.requiresExternalPower = true
        request.requiresNetworkConnectivity = true
        request.earliestBeginDate = Date(timeIntervalSinceNow: 24 * 60 * 60)
        try BGTaskScheduler.shared.submit(request)
    }

    private func run(_ task: BGTask) {
        let device = AppleDevice()
        task.expirationHandler = { device.stop() }
        Stint.run(
            on: device, work: work, again: { try self.schedule() },
            ended: { task.setTaskCompleted(success: $0) })
    }
}
#endif
