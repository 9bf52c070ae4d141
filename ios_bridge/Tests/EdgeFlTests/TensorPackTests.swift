// SPDX-License-Identifier: Apache-2.0
import Foundation
import XCTest

@testable import EdgeFl

final class TensorPackTests: XCTestCase {
    func testWritesWhatPythonWrites() throws {
        let pack = try TensorPack.write(["x": Tensor([1, 2] as [Float], shape: [2]), "a": Tensor([7] as [Int32], shape: [])])
        XCTAssertEqual(try TensorPack.read(pack)["x"]?.floats, [1, 2])
        XCTAssertEqual(try TensorPack.read(pack)["a"]?.integers, [7])
        let header = #"{"a":{"dtype":"I32","shape":[],"data_offsets":[0,4]},"#
            + #""x":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#
        XCTAssertEqual(String(decoding: pack[8..<8 + header.utf8.count], as: UTF8.self), header)
    }

    func testASizeThatOverflowsIsRefused() {
        XCTAssertNil(Tensor.bytes(.f32, [Int.max, 4]))
        XCTAssertEqual(Tensor.bytes(.f32, [Int.max, 4, 0]), 0)
    }

    func testSwiftAgreesWithTheVectors() throws {
        let root = ProcessInfo.processInfo.environment["EDGEFL_ROOT"] ?? "/edgefl"
        let folder = URL(fileURLWithPath: "\(root)/tests/conformance/vectors")
        let files = try FileManager.default.contentsOfDirectory(atPath: folder.path)
        let packs = files.filter { $0.hasPrefix("pack-") }, refused = files.filter { $0.hasPrefix("refused-") }
        XCTAssertEqual(packs.count, 6)
        XCTAssertEqual(refused.count, 10)
        for name in packs {
            let data = try Data(contentsOf: folder.appendingPathComponent(name))
            XCTAssertEqual(try TensorPack.write(TensorPack.read(data)), data, name)
        }
        for name in refused {
            let data = try Data(contentsOf: folder.appendingPathComponent(name))
            XCTAssertThrowsError(try TensorPack.read(data), name) { XCTAssertTrue($0 is PackError, "\($0)") }
        }
    }
}
