// SPDX-License-Identifier: Apache-2.0
import Foundation
import XCTest

@testable import EdgeFl

/// An engine whose kernels are Python's: what runs files here; on a phone it is Core ML.
private final class HostEngine: Engine {
    let python: PythonRuntime
    var runs = 0
    var refuses = false

    init(_ python: PythonRuntime) {
        self.python = python
    }

    func describe() -> String {
        #"{"name":"host-numpy","version":"1","target":"onnx"}"#
    }

    func run(artifact: String, signature: String, tensors: Data) throws -> Data {
        runs += 1
        if refuses { throw PackError("no memory on this phone") }
        guard
            case .bytes(let made) = try python.call(
                "edgefl.runtime.host.doubles", "run_onnx", [.text(artifact), .bytes(tensors)])
        else { throw PackError("no bytes") }
        return made
    }
}

private final class Phone: Device {
    var said = "{}"
    var told = false
    private(set) var events: [String] = []

    func reading() -> String { said }
    func stopped() -> Bool { told }
    func notify(_ event: String) { events.append(event) }
}

final class RoundTests: XCTestCase {
    private let root = ProcessInfo.processInfo.environment["EDGEFL_ROOT"] ?? "/edgefl"
    private let training = #""training":{"fit":{"epochs":2,"lr":0.1},"coding":{"density":0.5}}"#
    private var folder = URL(fileURLWithPath: NSTemporaryDirectory())

    override func setUpWithError() throws {
        folder = URL(fileURLWithPath: NSTemporaryDirectory())
            .appendingPathComponent("Zoës Gerät \(UUID().uuidString)")
        _ = try python().call("tests.host.doubles", "fill", [.text(folder.path)])
    }

    override func tearDownWithError() throws {
        try? FileManager.default.removeItem(at: folder)
    }

    private func python() throws -> PythonRuntime {
        try PythonRuntime.start(home: nil, paths: [root])
    }

    private func door() throws -> EdgeFl {
        EdgeFl(folder: folder, python: try python())
    }

    private var model: URL { URL(fileURLWithPath: "\(root)/tests/fixtures/mlp.edgefl") }

    func testARoundGivesTheBytesOfPython() throws {
        let engine = HostEngine(try python()), phone = Phone()
        let frame = try door().runRound(
            bundle: model, engine: engine, device: phone, settings: "{\(training)}")
        XCTAssertEqual(String(decoding: frame.prefix(4), as: UTF8.self), "EFLU")
        XCTAssertGreaterThanOrEqual(engine.runs, 10)
        XCTAssertTrue(try XCTUnwrap(phone.events.last).contains("trained"))
        let settings = PythonValue.text("{\(training)}")
        guard
            case .bytes(let expected) = try python().call(
                "tests.host.doubles", "frame_of", [.text(model.path), .text(folder.path), settings])
        else { return XCTFail("no frame") }
        XCTAssertEqual(frame, expected)
    }

    func testAPhoneThatMayNotTrainGivesNothing() throws {
        let phone = Phone()
        phone.said = #"{"thermal":"serious"}"#
        let frame = try door().runRound(
            bundle: model, engine: HostEngine(try python()), device: phone,
            settings: #"{\#(training),"when":{"cool":true}}"#)
        XCTAssertTrue(frame.isEmpty)
        XCTAssertTrue(try XCTUnwrap(phone.events.last).contains("slows itself down for heat"))
    }

    func testATaskThatExpiresStopsTraining() throws {
        let phone = Phone()
        phone.told = true
        let frame = try door().runRound(
            bundle: model, engine: HostEngine(try python()), device: phone, settings: "{\(training)}")
        XCTAssertTrue(frame.isEmpty)
    }

    /// What a background task does: the system says that time is up, and training ends with its checkpoint kept.
    func testAStintEndsWhenTimeIsUpAndAsksForMore() throws {
        let phone = Phone(), door = try door(), engine = HostEngine(try python()), model = model
        let ended = expectation(description: "the task is over")
        var told: [String] = []
        Stint.run(
            on: phone,
            work: { device in
                let slow = #"{"training":{"fit":{"epochs":10000,"lr":0.000001}}}"#
                let frame = try door.runRound(bundle: model, engine: engine, device: device, settings: slow)
                told.append(frame.isEmpty ? "stopped" : "trained")
            },
            again: { told.append("again") },
            ended: { well in
                told.append("ended \(well)")
                ended.fulfill()
            })
        let deadline = Date(timeIntervalSinceNow: 60)
        while engine.runs < 10 && Date() < deadline { Thread.sleep(forTimeInterval: 0.01) }
        phone.told = true
        wait(for: [ended], timeout: 60)
        XCTAssertEqual(told, ["stopped", "again", "ended true"])
    }

    func testAStintThatFailsIsToldSo() throws {
        let ended = expectation(description: "the task is over")
        var asked = false
        Stint.run(
            on: Phone(), work: { _ in throw PackError("no examples") },
            again: {
                asked = true
                throw PackError("the system takes no more tasks")
            },
            ended: { well in
                XCTAssertFalse(well)
                ended.fulfill()
            })
        wait(for: [ended], timeout: 60)
        XCTAssertTrue(asked)
    }

    func testLargeTensorsCross() throws {
        let values = (0..<(4 << 20)).map { Float($0) }
        let pack = try TensorPack.write(["x": Tensor(values, shape: [4 << 20])])
        XCTAssertGreaterThan(pack.count, 16 << 20)
        guard case .bytes(let back) = try python().call("tests.host.doubles", "again", [.bytes(pack)]) else {
            return XCTFail("no bytes")
        }
        XCTAssertEqual(back, pack)
    }

    func testWhatPythonRaisesArrivesInSwift() throws {
        let engine = HostEngine(try python())
        engine.refuses = true
        XCTAssertThrowsError(
            try door().runRound(bundle: model, engine: engine, device: Phone(), settings: "{\(training)}")
        ) { error in
            XCTAssertTrue("\(error)".contains("BackendFailure"), "\(error)")
            XCTAssertTrue("\(error)".contains("no memory on this phone"), "\(error)")
        }
        XCTAssertThrowsError(
            try door().takePart(
                server: "http://127.0.0.1:9", engine: engine, device: Phone(), settings: #"{"rounds":-1}"#))
    }

    func testExamplesAreKeptAndForgotten() throws {
        final class Upside: ExampleCipher {
            func seal(_ plain: Data, about: Data) throws -> Data { Data(plain.reversed()) + about }
            func open(_ sealed: Data, about: Data) throws -> Data {
                guard sealed.suffix(about.count) == about else { throw PackError("another's") }
                return Data(sealed.dropLast(about.count).reversed())
            }
        }
        let home = folder.appendingPathComponent("store")
        let door = EdgeFl(folder: home, python: try python(), cipher: Upside())
        try door.collectFor(bundle: model)
        for number in 0..<10 {
            let x = (0..<6).map { Float(number * 6 + $0) / 60 }
            let example = ["x": try Tensor(x, shape: [6]), "y": try Tensor([Int32(number % 3)], shape: [])]
            XCTAssertTrue(try door.add(example, key: "walk \(number % 2)"))
            XCTAssertFalse(try door.add(example, key: "walk"))
        }
        XCTAssertEqual(try door.forget(key: "walk 1"), 5)
        let frame = try door.runRound(
            bundle: model, engine: HostEngine(try python()), device: Phone(), settings: "{\(training)}")
        XCTAssertFalse(frame.isEmpty)
    }

    func testTheSelfTestReplaysTheVectors() throws {
        let vectors = URL(fileURLWithPath: "\(root)/tests/conformance/vectors")
        let report = try door().selfTest(vectors: vectors, engine: HostEngine(try python()))
        XCTAssertTrue(report.contains("36 of 36 vectors as expected"), report)
    }

    func testManyThreadsMayCall() throws {
        let python = try python(), root = root
        DispatchQueue.concurrentPerform(iterations: 16) { _ in
            guard case .flag(true)? = try? python.call("os.path", "isdir", [.text(root)]) else {
                return XCTFail("a call from another thread failed")
            }
        }
    }

    func testObjectsAreLetGo() throws {
        let python = try python()
        weak var held: HostEngine?
        try {
            let engine = HostEngine(python)
            held = engine
            _ = try door().runRound(
                bundle: model, engine: engine, device: Phone(), settings: "{\(training)}")
        }()
        _ = try python.call("gc", "collect", [])
        XCTAssertNil(held, "Python holds an engine that Swift let go")
    }

    /// The server runs outside, started by whoever runs the tests; it says what settings it wants.
    func testARoundWithAServer() throws {
        let environment = ProcessInfo.processInfo.environment
        guard let server = environment["EDGEFL_SERVER"] else { throw XCTSkip("EDGEFL_SERVER names no server") }
        let answer = try door().takePart(
            server: server, engine: HostEngine(try python()), device: Phone(),
            settings: environment["EDGEFL_SETTINGS"] ?? "{}")
        XCTAssertTrue(answer.contains(#""finished": true"#), answer)
        XCTAssertTrue(answer.contains(#""engine": "host-numpy 1""#), answer)
    }
}
