// SPDX-License-Identifier: Apache-2.0
// Declarations after Apple's documentation of Background Tasks, for type-checking on Linux. Nothing here runs.
import Foundation

public class BGTask {
    public var expirationHandler: (() -> Void)?
    public func setTaskCompleted(success: Bool) { fatalError("Background Tasks is not here") }
}

public class BGProcessingTaskRequest {
    public init(identifier: String) { fatalError("Background Tasks is not here") }
    public var requiresExternalPower = false
    public var requiresNetworkConnectivity = false
    public var earliestBeginDate: Date?
}

public class BGTaskScheduler {
    public class var shared: BGTaskScheduler { fatalError("Background Tasks is not here") }
    @discardableResult
    public func register(
        forTaskWithIdentifier identifier: String, using queue: DispatchQueue?,
        launchHandler: @escaping (BGTask) -> Void
    ) -> Bool { fatalError("Background Tasks is not here") }
    public func submit(_ taskRequest: BGProcessingTaskRequest) throws { fatalError("Background Tasks is not here") }
}
