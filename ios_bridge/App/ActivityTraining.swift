// SPDX-License-Identifier: Apache-2.0
import EdgeFl
import EdgeFlApple
import Foundation

/// Learns which activity a user is at: everything an app writes besides its own screens.
final class ActivityTraining {
    static let task = "org.example.activity.training"

    let device: EdgeFl
    private let background: BackgroundTraining

    /// To be called before the app has finished launching.
    init(bundle: URL) throws {
        let resources = Bundle.main.bundleURL
        let python = try PythonRuntime.start(
            home: resources.appendingPathComponent("python").path,
            paths: [resources.appendingPathComponent("app_packages").path])
        let files = FileManager.default.urls(for: .applicationSupportDirectory, in: .userDomainMask)[0]
        let device = EdgeFl(folder: files.appendingPathComponent("edgefl"), python: python)
        try device.collectFor(bundle: bundle)
        background = BackgroundTraining(identifier: Self.task) { phone in
            let settings = #"{"when": {"unmetered": true, "full_power": true, "cool": true}, "limits": {"duty": 50}}"#
            _ = try device.takePart(
                server: "https://fl.example.org", engine: CoreMLEngine(), device: phone, settings: settings)
        }
        self.device = device
        background.register()
        try background.schedule()
    }

    /// Whenever the user says what a window of the accelerometer was.
    func confirm(window: [Float], activity: Int32, day: String) throws {
        try device.add(
            ["x": Tensor(window, shape: [window.count / 3, 3]), "y": Tensor([activity], shape: [])], key: day)
    }

    /// The user's right.
    func forget(day: String) throws {
        try device.forget(key: day)
    }
}
