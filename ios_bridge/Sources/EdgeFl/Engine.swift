// SPDX-License-Identifier: Apache-2.0
import Foundation

/// What runs a model file. Python calls it; only text and bytes cross.
public protocol Engine: AnyObject {
    /// JSON: `{"name": "coreml", "version": "17.4", "target": "coreml"}`.
    func describe() -> String

    /// Runs a file on named tensors.
    ///
    /// - Parameters:
    ///   - artifact: the file's path; the same path is always the same file.
    ///   - signature: the graph's name, where a file holds several.
    ///   - tensors: every input by the file's own name, as `TensorPack` writes them.
    /// - Returns: every output by the file's own name, written so too.
    func run(artifact: String, signature: String, tensors: Data) throws -> Data
}

/// The state of the device, and the app's ear. Python calls it between steps, on the training thread.
public protocol Device: AnyObject {
    /// JSON with whatever can be read: `charging`, `metered`, `power_save`, `battery` (percent), `thermal`
    /// (`nominal`, `fair`, `serious` or `critical`), `free_storage`, `free_memory` (bytes). What is left out
    /// cannot be read here.
    func reading() -> String

    /// Whether training must stop now. It is checkpointed and goes on another time.
    func stopped() -> Bool

    /// Told what happens, as JSON with an `event`.
    func notify(_ event: String)
}

/// Authenticated encryption of examples where they lie. Python calls it.
public protocol ExampleCipher: AnyObject {
    /// Encrypted bytes, other ones each time, that belong to `about`.
    func seal(_ plain: Data, about: Data) throws -> Data

    /// What was sealed; throws where a bit of it or of `about` is another.
    func open(_ sealed: Data, about: Data) throws -> Data
}
