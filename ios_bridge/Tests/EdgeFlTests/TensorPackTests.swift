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
}
