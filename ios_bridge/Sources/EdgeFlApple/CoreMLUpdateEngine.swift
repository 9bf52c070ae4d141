// SPDX-License-Identifier: Apache-2.0
import CoreML
import EdgeFl
import Foundation

/// Update tasks on a bundle's updatable model, one mini-batch each: Python makes a training step of them. For
/// features and inference it runs ML Programs. `CoreMLEngine` is the first choice: a task costs more than a step.
public final class CoreMLUpdateEngine: Engine {
    private let units: MLComputeUnits
    private let programs: CoreMLEngine

    /// - Parameter units: as for `CoreMLEngine`.
    public init(units: MLComputeUnits = .cpuOnly) {
        self.units = units
        programs = CoreMLEngine(units: units)
    }

    public func describe() -> String {
        #"{"name":"coreml-update","version":"\#(systemVersion())","target":"coreml","trains":"updatable"}"#
    }

    public func run(artifact: String, signature: String, tensors: Data) throws -> Data {
        guard signature == "updatable" else {
            return try programs.run(artifact: artifact, signature: signature, tensors: tensors)
        }
        let input = try TaskInput(TensorPack.read(tensors))
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units
        configuration.parameters = try input.parameters()
        let made = try updated(compiled(artifact), input.examples(), configuration)
        var outputs = ["loss": try Tensor([Float(made.loss)], shape: [1])]
        for (name, key) in input.keys {
            guard let value = try made.model.parameterValue(for: key) as? MLMultiArray else {
                throw PackError("Core ML gives no parameter '\(name)' back")
            }
            outputs[name] = try tensor(of: value)
        }
        return try TensorPack.write(outputs)
    }

    /// The model after the task, and the loss of its one mini-batch before it.
    private func updated(_ model: URL, _ examples: MLBatchProvider, _ configuration: MLModelConfiguration) throws
        -> (model: MLModel, loss: Double)
    {
        let done = DispatchSemaphore(value: 0)
        var loss = Double.nan
        var ended: MLUpdateContext?
        let handlers = MLUpdateProgressHandlers(
            forEvents: [.miniBatchEnd],
            progressHandler: { loss = $0.metrics[.lossValue] as? Double ?? loss },
            completionHandler: {
                ended = $0
                done.signal()
            })
        let task = try MLUpdateTask(
            forModelAt: model, trainingData: examples, configuration: configuration, progressHandlers: handlers)
        task.resume()
        done.wait()
        if let error = task.error { throw error }
        guard let ended else { throw PackError("Core ML ended a task without a word") }
        return (ended.model, loss)
    }
}

/// What crosses: examples by the model's names, `LAYER/weights`, `LAYER/biases` and `/rate`.
private struct TaskInput {
    private let features: [String: Tensor]
    private let held: [String: Tensor]
    private let rate: Float

    init(_ tensors: [String: Tensor]) throws {
        features = tensors.filter { !$0.key.contains("/") }
        held = tensors.filter { $0.key.contains("/") && $0.key != "/rate" }
        guard let rate = tensors["/rate"]?.floats?.first else { throw PackError("a task has no '/rate'") }
        self.rate = rate
    }

    /// Where Core ML keeps each parameter.
    var keys: [(String, MLParameterKey)] {
        held.keys.map { name in
            let parts = name.split(separator: "/").map(String.init)
            let kind = parts.last == "weights" ? MLParameterKey.weights : MLParameterKey.biases
            return (name, kind.scoped(to: parts[0]))
        }
    }

    func parameters() throws -> [MLParameterKey: Any] {
        var made: [MLParameterKey: Any] = [.learningRate: Double(rate), .epochs: 1]
        for (name, key) in keys {
            if let value = held[name] { made[key] = try array(of: value) }
        }
        return made
    }

    /// Every example by itself, as update tasks want them.
    func examples() throws -> MLBatchProvider {
        let count = features.values.first?.shape.first ?? 0
        return MLArrayBatchProvider(
            array: try (0..<count).map { number in
                try MLDictionaryFeatureProvider(
                    dictionary: features.mapValues { MLFeatureValue(multiArray: try array(of: $0.row(number))) })
            })
    }
}

extension Tensor {
    /// One example of many.
    fileprivate func row(_ number: Int) throws -> Tensor {
        let rest = Array(shape.dropFirst())
        let size = content.count / max(1, shape.first ?? 1)
        let from = content.startIndex + number * size
        return try Tensor(kind: kind, shape: rest, content: Data(content[from..<from + size]))
    }
}
