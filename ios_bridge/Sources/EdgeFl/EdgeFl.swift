// SPDX-License-Identifier: Apache-2.0
import Foundation

/// The door to edgefl's Python runtime. One folder is one device; a folder has one training at a time.
public final class EdgeFl {
    private static let module = "edgefl.runtime.host"

    private let folder: URL
    private let python: PythonRuntime
    private let cipher: ExampleCipher?

    /// - Parameters:
    ///   - folder: what the device must remember; made if it is not there.
    ///   - cipher: seals the examples; the same for as long as they are kept.
    public init(folder: URL, python: PythonRuntime, cipher: ExampleCipher? = nil) {
        self.folder = folder
        self.python = python
        self.cipher = cipher
    }

    /// Takes part in a server's rounds until it has no more work, the device may not train, or it is told to
    /// stop. Blocks; training that is cut short goes on at the next call.
    ///
    /// - Parameter settings: JSON, `{}` or any of `rounds`, `when`, `limits`, `token`, `publisher_key`,
    ///   `reach`.
    /// - Returns: JSON: `rounds` with what became of each, `paused` with reasons, `finished`.
    public func takePart(server: String, engine: Engine, device: Device, settings: String = "{}") throws -> String {
        try text(
            "take_part",
            [.text(server), .text(folder.path), .engine(engine), .device(device), .text(settings), key])
    }

    /// Trains one round on a bundle in a file, without a server.
    ///
    /// - Returns: the update's frame, as it would travel; empty if the device may not train now.
    public func runRound(bundle: URL, engine: Engine, device: Device, settings: String = "{}") throws -> Data {
        let arguments: [PythonValue] = [
            .text(bundle.path), .text(folder.path), .engine(engine), .device(device), .text(settings), key,
        ]
        guard case .bytes(let frame) = try python.call(EdgeFl.module, "run_round", arguments) else {
            throw PythonError(description: "run_round gave no bytes")
        }
        return frame
    }

    /// Makes the store for a model's examples, or sees that there is one that fits it.
    ///
    /// - Parameter bundle: the model, such as a resource of the app.
    public func collectFor(bundle: URL) throws {
        _ = try python.call(EdgeFl.module, "collect_for", [.text(folder.path), .text(bundle.path), key])
    }

    /// Keeps one example to train on: inputs by name and labels as `y`, without the batch's dimension. On return
    /// it survives a crash.
    ///
    /// - Parameter key: names whom or what it belongs to, so that it can be forgotten; may be empty.
    /// - Returns: whether it is new.
    @discardableResult
    public func add(_ example: [String: Tensor], key: String = "") throws -> Bool {
        let pack = try TensorPack.write(example)
        let made = try python.call(
            EdgeFl.module, "add_example", [.text(folder.path), .bytes(pack), .text(key), self.key])
        guard case .flag(let new) = made else { throw PythonError(description: "add_example gave no flag") }
        return new
    }

    /// Forgets the examples of a key and what was derived from them; returns how many.
    @discardableResult
    public func forget(key: String) throws -> Int {
        let made = try python.call(EdgeFl.module, "forget_examples", [.text(folder.path), .text(key), self.key])
        guard case .whole(let count) = made else { throw PythonError(description: "forget_examples gave no count") }
        return count
    }

    /// Why the device would not train now and what it did so far, as JSON.
    public func status(device: Device) throws -> String {
        try text("device_status", [.text(folder.path), .device(device)])
    }

    /// Replays the conformance vectors on this device.
    ///
    /// - Parameter vectors: the folder `tests/conformance/vectors`, as a resource of the app.
    /// - Returns: a report in Markdown, to be pasted into an issue.
    public func selfTest(vectors: URL, engine: Engine) throws -> String {
        try text("self_test", [.text(vectors.path), .engine(engine)])
    }

    private var key: PythonValue {
        cipher.map(PythonValue.cipher) ?? .none
    }

    private func text(_ function: String, _ arguments: [PythonValue]) throws -> String {
        guard case .text(let made) = try python.call(EdgeFl.module, function, arguments) else {
            throw PythonError(description: "\(function) gave no text")
        }
        return made
    }
}
