// SPDX-License-Identifier: Apache-2.0
import EdgeFl
import EdgeFlApple
import Foundation
import XCTest

/// What only Apple's systems can answer; elsewhere these tests compile, and there are none to run.
final class CoreMLTests: XCTestCase {
    #if canImport(Darwin)
    func testCoreMLComputesWhatTheVectorsSay() throws {
        try replay(CoreMLEngine())
    }

    func testUpdateTasksAreStepsOfTheVectors() throws {
        try replay(CoreMLUpdateEngine())
    }

    func testAMacReadsWhatItCan() throws {
        let reading = try JSONSerialization.jsonObject(with: Data(AppleDevice().reading().utf8))
        let fields = try XCTUnwrap(reading as? [String: Any])
        XCTAssertNotNil(fields["thermal"])
        XCTAssertNotNil(fields["free_storage"])
    }
    #endif

    private func replay(_ engine: Engine) throws {
        let root = ProcessInfo.processInfo.environment["EDGEFL_ROOT"] ?? "/edgefl"
        let home = URL(fileURLWithPath: NSTemporaryDirectory()).appendingPathComponent(UUID().uuidString)
        defer { try? FileManager.default.removeItem(at: home) }
        let device = EdgeFl(folder: home, python: try PythonRuntime.start(home: nil, paths: [root]))
        let vectors = URL(fileURLWithPath: "\(root)/tests/conformance/vectors")
        let report = try device.selfTest(vectors: vectors, engine: engine)
        let rows = report.split(separator: "\n").filter { $0.hasPrefix("| ") }.dropFirst()
        XCTAssertGreaterThan(rows.count, 0)
        XCTAssertTrue(rows.allSatisfy { $0.hasSuffix("| as expected |") }, report)
    }
}
