// SPDX-License-Identifier: Apache-2.0
// Declarations after Apple's documentation of Core ML, for type-checking on Linux. Nothing here computes.
import Foundation

public enum MLComputeUnits { case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine }

public enum MLMultiArrayDataType: Int { case double = 0x10040, float32 = 0x10020, float16 = 0x10010, int32 = 0x20020 }

public class MLMultiArray {
    public init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws { fatalError("Core ML is not here") }
    public var dataType: MLMultiArrayDataType { fatalError("Core ML is not here") }
    public var shape: [NSNumber] { fatalError("Core ML is not here") }
    public var strides: [NSNumber] { fatalError("Core ML is not here") }
    public var dataPointer: UnsafeMutableRawPointer { fatalError("Core ML is not here") }
}

public class MLFeatureValue {
    public init(multiArray value: MLMultiArray) { fatalError("Core ML is not here") }
    public var multiArrayValue: MLMultiArray? { fatalError("Core ML is not here") }
}

public protocol MLFeatureProvider {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

public class MLDictionaryFeatureProvider: MLFeatureProvider {
    public init(dictionary: [String: Any]) throws { fatalError("Core ML is not here") }
    public var featureNames: Set<String> { fatalError("Core ML is not here") }
    public func featureValue(for featureName: String) -> MLFeatureValue? { fatalError("Core ML is not here") }
}

public class MLModelConfiguration {
    public init() {}
    public var computeUnits: MLComputeUnits = .all
}

public class MLModel {
    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {
        fatalError("Core ML is not here")
    }
    public class func compileModel(at modelURL: URL) throws -> URL { fatalError("Core ML is not here") }
    public func prediction(from input: MLFeatureProvider) throws -> MLFeatureProvider {
        fatalError("Core ML is not here")
    }
}
