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
    public var parameters: [MLParameterKey: Any]?
}

public final class MLParameterKey: Hashable {
    private init() { fatalError("Core ML is not here") }
    public class var weights: MLParameterKey { fatalError("Core ML is not here") }
    public class var biases: MLParameterKey { fatalError("Core ML is not here") }
    public class var learningRate: MLParameterKey { fatalError("Core ML is not here") }
    public class var epochs: MLParameterKey { fatalError("Core ML is not here") }
    public func scoped(to scope: String) -> MLParameterKey { fatalError("Core ML is not here") }
    public static func == (a: MLParameterKey, b: MLParameterKey) -> Bool { fatalError("Core ML is not here") }
    public func hash(into hasher: inout Hasher) { fatalError("Core ML is not here") }
}

public final class MLMetricKey: Hashable {
    private init() { fatalError("Core ML is not here") }
    public class var lossValue: MLMetricKey { fatalError("Core ML is not here") }
    public static func == (a: MLMetricKey, b: MLMetricKey) -> Bool { fatalError("Core ML is not here") }
    public func hash(into hasher: inout Hasher) { fatalError("Core ML is not here") }
}

public protocol MLBatchProvider {}

public class MLArrayBatchProvider: MLBatchProvider {
    public init(array: [MLFeatureProvider]) { fatalError("Core ML is not here") }
}

public protocol MLWritable {}

public struct MLUpdateProgressEvent: OptionSet {
    public let rawValue: Int
    public init(rawValue: Int) { self.rawValue = rawValue }
    public static let miniBatchEnd = MLUpdateProgressEvent(rawValue: 4)
}

public class MLUpdateContext {
    public var task: MLUpdateTask { fatalError("Core ML is not here") }
    public var model: MLModel & MLWritable { fatalError("Core ML is not here") }
    public var metrics: [MLMetricKey: Any] { fatalError("Core ML is not here") }
}

public class MLUpdateProgressHandlers {
    public init(
        forEvents interestedEvents: MLUpdateProgressEvent, progressHandler: ((MLUpdateContext) -> Void)?,
        completionHandler: @escaping (MLUpdateContext) -> Void
    ) { fatalError("Core ML is not here") }
}

public class MLTask {
    init() { fatalError("Core ML is not here") }
    public var error: Error? { fatalError("Core ML is not here") }
    public func resume() { fatalError("Core ML is not here") }
}

public class MLUpdateTask: MLTask {
    public init(
        forModelAt modelURL: URL, trainingData: MLBatchProvider, configuration: MLModelConfiguration?,
        progressHandlers: MLUpdateProgressHandlers
    ) throws { fatalError("Core ML is not here") }
}

public class MLModel {
    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {
        fatalError("Core ML is not here")
    }
    public func parameterValue(for key: MLParameterKey) throws -> Any { fatalError("Core ML is not here") }
    public class func compileModel(at modelURL: URL) throws -> URL { fatalError("Core ML is not here") }
    public func prediction(from input: MLFeatureProvider) throws -> MLFeatureProvider {
        fatalError("Core ML is not here")
    }
}
