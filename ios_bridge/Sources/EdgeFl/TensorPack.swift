// SPDX-License-Identifier: Apache-2.0
import Foundation

/// A tensor's type, shape and content; the content is little-endian and in C order.
public struct Tensor: Equatable {
    /// The layout's codes of element types.
    public enum Kind: String, CaseIterable {
        case f64 = "F64", f32 = "F32", f16 = "F16"
        case i64 = "I64", i32 = "I32", i16 = "I16", i8 = "I8"
        case u64 = "U64", u32 = "U32", u16 = "U16", u8 = "U8"
        case bool = "BOOL"

        /// Bytes of one element.
        public var size: Int {
            switch self {
            case .f64, .i64, .u64: return 8
            case .f32, .i32, .u32: return 4
            case .f16, .i16, .u16: return 2
            case .i8, .u8, .bool: return 1
            }
        }
    }

    public let kind: Kind
    public let shape: [Int]
    public let content: Data

    /// - Throws: `PackError` if the content has not the bytes that type and shape ask for.
    public init(kind: Kind, shape: [Int], content: Data) throws {
        guard let size = Tensor.bytes(kind, shape), size == content.count else {
            throw PackError("a tensor of \(kind.rawValue)\(shape) has \(content.count) bytes")
        }
        self.kind = kind
        self.shape = shape
        self.content = content
    }

    public init(_ values: [Float], shape: [Int]) throws {
        try self.init(kind: .f32, shape: shape, content: Tensor.littleEndian(values.map { $0.bitPattern }))
    }

    public init(_ values: [Int32], shape: [Int]) throws {
        try self.init(kind: .i32, shape: shape, content: Tensor.littleEndian(values))
    }

    /// The content as floats; nil for other types.
    public var floats: [Float]? {
        kind == .f32 ? words().map { Float(bitPattern: $0) } : nil
    }

    /// The content as 32-bit integers; nil for other types.
    public var integers: [Int32]? {
        kind == .i32 ? words().map { Int32(bitPattern: $0) } : nil
    }

    static func bytes(_ kind: Kind, _ shape: [Int]) -> Int? {
        var size = kind.size
        for n in shape {
            let (product, overflow) = size.multipliedReportingOverflow(by: n)
            if n < 0 || (overflow && !shape.contains(0)) { return nil }
            size = overflow ? 0 : product
        }
        return size
    }

    private func words() -> [UInt32] {
        let bytes = [UInt8](content)
        return stride(from: 0, to: bytes.count, by: 4).map { at in
            (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[at + $1]) << (8 * UInt32($1)) }
        }
    }

    private static func littleEndian<T: FixedWidthInteger>(_ values: [T]) -> Data {
        var data = Data(capacity: values.count * MemoryLayout<T>.size)
        for value in values {
            withUnsafeBytes(of: value.littleEndian) { data.append(contentsOf: $0) }
        }
        return data
    }
}

/// Bytes that are no tensors, or tensors that the layout cannot hold.
public struct PackError: Error, CustomStringConvertible, Equatable {
    public let description: String

    public init(_ description: String) {
        self.description = description
    }
}

/// Named tensors as bytes, in the safetensors layout: an 8-byte little-endian length, a JSON header padded with
/// spaces to a multiple of 8, and the tensors back to back. Names are sorted by code point, so equal tensors
/// give equal bytes: the same as Python's `edgefl.tensorfile` and Java's `TensorPack`.
public enum TensorPack {
    static let maxHeaderBytes = 16 << 20
    static let maxTensors = 1 << 16
    static let maxRank = 16
    static let metadata = "__metadata__"

    public static func write(_ tensors: [String: Tensor]) throws -> Data {
        var rows: [String] = []
        var body = Data()
        // Not by Swift's own order of strings, which follows canonical equivalence.
        let names = tensors.keys.sorted { $0.unicodeScalars.lexicographicallyPrecedes($1.unicodeScalars) }
        for name in names {
            guard name != metadata, let tensor = tensors[name] else {
                throw PackError("tensor name '\(metadata)' is reserved by the layout")
            }
            let end = body.count + tensor.content.count
            let shape = tensor.shape.map(String.init).joined(separator: ",")
            rows.append(
                "\(JSON.quoted(name)):{\"dtype\":\"\(tensor.kind.rawValue)\",\"shape\":[\(shape)],"
                    + "\"data_offsets\":[\(body.count),\(end)]}")
            body.append(tensor.content)
        }
        var header = Data("{\(rows.joined(separator: ","))}".utf8)
        while header.count % 8 != 0 { header.append(UInt8(ascii: " ")) }
        var pack = Data()
        withUnsafeBytes(of: UInt64(header.count).littleEndian) { pack.append(contentsOf: $0) }
        return pack + header + body
    }

    public static func read(_ data: Data) throws -> [String: Tensor] {
        let bytes = Data(data)
        guard bytes.count >= 8 else {
            throw PackError("a pack has \(bytes.count) bytes, its header's length alone takes 8")
        }
        let length = bytes.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard length <= UInt64(min(maxHeaderBytes, bytes.count - 8)) else {
            throw PackError("a pack's header declares \(length) bytes of \(bytes.count - 8)")
        }
        let base = 8 + Int(length)
        guard case .object(let header) = try JSON.parse(bytes[8..<base]) else {
            throw PackError("a pack's header is no JSON object")
        }
        if let free = header[metadata] { try checkMetadata(free) }
        let rows = try header.filter { $0.key != metadata }.map { try Row($0.key, $0.value) }
        guard rows.count <= maxTensors else {
            throw PackError("a pack has \(rows.count) tensors, allowed \(maxTensors)")
        }
        try checkCover(rows, bytes.count - base)
        return try Dictionary(uniqueKeysWithValues: rows.map { row in
            let content = Data(bytes[base + row.start..<base + row.stop])
            if row.kind == .bool, content.contains(where: { $0 > 1 }) {
                throw PackError("tensor '\(row.name)' has truth values beside 0 and 1")
            }
            return (row.name, try Tensor(kind: row.kind, shape: row.shape, content: content))
        })
    }

    private static func checkMetadata(_ value: JSON) throws {
        guard case .object(let texts) = value,
            texts.values.allSatisfy({ if case .text = $0 { return true } else { return false } })
        else { throw PackError("metadata holds values that are no text") }
    }

    /// Tensors cover the data exactly: no gap to hide bytes in, no overlap, no truncation.
    private static func checkCover(_ rows: [Row], _ size: Int) throws {
        var end = 0
        for row in rows.sorted(by: { ($0.start, $0.stop) < ($1.start, $1.stop) }) {
            guard row.start == end else {
                throw PackError("tensor '\(row.name)' starts at byte \(row.start), expected \(end)")
            }
            end = row.stop
        }
        guard end == size else { throw PackError("tensors take \(end) bytes, the pack has \(size) for them") }
    }

    /// One tensor's line in the header, in agreement with itself.
    private struct Row {
        let name: String
        let kind: Tensor.Kind
        let shape: [Int]
        let start: Int
        let stop: Int

        init(_ name: String, _ value: JSON) throws {
            guard case .object(let fields) = value, fields.count == 3,
                case .text(let code)? = fields["dtype"], let kind = Tensor.Kind(rawValue: code),
                let shape = fields["shape"]?.sizes, shape.count <= maxRank,
                let offsets = fields["data_offsets"]?.sizes, offsets.count == 2,
                Tensor.bytes(kind, shape) == offsets[1] - offsets[0]
            else { throw PackError("tensor '\(name)' has a header that is not the layout's") }
            self.name = name
            self.kind = kind
            self.shape = shape
            start = offsets[0]
            stop = offsets[1]
        }
    }
}
