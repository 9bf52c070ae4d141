// SPDX-License-Identifier: Apache-2.0
import CoreML
import EdgeFl
import Foundation

/// ML Programs on Core ML, by ordinary predictions: the training step is a model like any other.
public final class CoreMLEngine: Engine {
    private let units: MLComputeUnits
    private let lock = NSLock()
    private var loaded: [String: MLModel] = [:]

    /// - Parameter units: `.cpuOnly` computes in float32. Others may compute in float16, which the runtime's
    ///   trial then finds exact enough, or not.
    public init(units: MLComputeUnits = .cpuOnly) {
        self.units = units
    }

    public func describe() -> String {
        #"{"name":"coreml","version":"\#(systemVersion())","target":"coreml"}"#
    }

    public func run(artifact: String, signature: String, tensors: Data) throws -> Data {
        let model = try model(artifact)
        let inputs = try TensorPack.read(tensors).mapValues { MLFeatureValue(multiArray: try array(of: $0)) }
        let made = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: inputs))
        var outputs: [String: Tensor] = [:]
        for name in made.featureNames {
            guard let array = made.featureValue(for: name)?.multiArrayValue else {
                throw PackError("Core ML gives an output '\(name)' that is no array")
            }
            outputs[name] = try tensor(of: array)
        }
        return try TensorPack.write(outputs)
    }

    private func model(_ artifact: String) throws -> MLModel {
        lock.lock()
        defer { lock.unlock() }
        if let known = loaded[artifact] { return known }
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units
        let made = try MLModel(contentsOf: compiled(artifact), configuration: configuration)
        loaded[artifact] = made
        return made
    }
}

/// Core ML's version is the system's.
func systemVersion() -> String {
    let version = ProcessInfo.processInfo.operatingSystemVersion
    return "\(version.majorVersion).\(version.minorVersion).\(version.patchVersion)"
}

/// A package or model as Core ML loads it, compiled once and kept beside the file.
func compiled(_ artifact: String) throws -> URL {
    let file = URL(fileURLWithPath: artifact)
    let compiled = file.deletingPathExtension().appendingPathExtension("mlmodelc")
    if !FileManager.default.fileExists(atPath: compiled.path) {
        // Core ML compiles into a temporary folder that the system may empty.
        try FileManager.default.moveItem(at: MLModel.compileModel(at: file), to: compiled)
    }
    return compiled
}

private func kind(of type: MLMultiArrayDataType) throws -> Tensor.Kind {
    switch type {
    case .float32: return .f32
    case .int32: return .i32
    case .double: return .f64
    default: throw PackError("Core ML gives an array of type \(type.rawValue)")
    }
}

func array(of tensor: Tensor) throws -> MLMultiArray {
    let types: [Tensor.Kind: MLMultiArrayDataType] = [.f32: .float32, .i32: .int32, .f64: .double]
    guard let type = types[tensor.kind] else {
        throw PackError("Core ML takes no arrays of \(tensor.kind.rawValue)")
    }
    let array = try MLMultiArray(shape: tensor.shape.map { NSNumber(value: $0) }, dataType: type)
    // Arrays that are made so are dense and in C order.
    tensor.content.withUnsafeBytes { source in
        UnsafeMutableRawBufferPointer(start: array.dataPointer, count: source.count).copyMemory(from: source)
    }
    return array
}

/// A copy in C order: what Core ML gives may have gaps between rows.
func tensor(of array: MLMultiArray) throws -> Tensor {
    let kind = try kind(of: array.dataType)
    let shape = array.shape.map(\.intValue), strides = array.strides.map(\.intValue)
    let count = shape.reduce(1, *)
    var content = Data(count: count * kind.size)
    content.withUnsafeMutableBytes { target in
        for at in 0..<count {
            var rest = at, offset = 0
            for axis in shape.indices.reversed() {
                offset += rest % shape[axis] * strides[axis]
                rest /= shape[axis]
            }
            let element = UnsafeRawBufferPointer(start: array.dataPointer + offset * kind.size, count: kind.size)
            UnsafeMutableRawBufferPointer(rebasing: target[(at * kind.size)..<((at + 1) * kind.size)])
                .copyMemory(from: element)
        }
    }
    return try Tensor(kind: kind, shape: shape, content: content)
}
