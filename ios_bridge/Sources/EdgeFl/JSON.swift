// SPDX-License-Identifier: Apache-2.0
import Foundation

/// As much JSON as the seam needs: strict, no duplicate keys, bounded depth, whole numbers kept whole.
/// Foundation's reader keeps neither apart.
enum JSON: Equatable {
    case object([String: JSON])
    case list([JSON])
    case text(String)
    case whole(Int)
    case number(Double)
    case flag(Bool)
    case null

    /// Whole numbers from 0 to 2147483647; nil for anything else.
    var sizes: [Int]? {
        guard case .list(let items) = self else { return nil }
        var found: [Int] = []
        for item in items {
            guard case .whole(let value) = item, (0...Int(Int32.max)).contains(value) else { return nil }
            found.append(value)
        }
        return found
    }

    static func parse(_ utf8: Data) throws -> JSON {
        guard let text = String(validatingUTF8: utf8) else { throw PackError("JSON that is not UTF-8") }
        var reader = Reader(text)
        let value = try reader.value(0)
        reader.space()
        guard reader.atEnd else { throw reader.wrong("something after its end") }
        return value
    }

    /// Text as Python's json writes it without escaping what is not ASCII.
    static func quoted(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\r": out += "\\r"
            case "\t": out += "\\t"
            case "\u{8}": out += "\\b"
            case "\u{c}": out += "\\f"
            case let c where c.value < 0x20:
                let digits = String(c.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }

    private struct Reader {
        private static let maxDepth = 16
        private let text: [Unicode.Scalar]
        private var at = 0

        init(_ text: String) {
            self.text = Array(text.unicodeScalars)
        }

        var atEnd: Bool { at == text.count }

        func wrong(_ what: String) -> PackError {
            PackError("JSON has \(what) at character \(at)")
        }

        mutating func space() {
            while at < text.count, " \t\n\r".unicodeScalars.contains(text[at]) { at += 1 }
        }

        mutating func value(_ depth: Int) throws -> JSON {
            guard depth <= Reader.maxDepth else { throw wrong("more than \(Reader.maxDepth) levels") }
            space()
            switch try peek() {
            case "{": return try object(depth)
            case "[": return try list(depth)
            case "\"": return .text(try string())
            case "t": return try word("true", .flag(true))
            case "f": return try word("false", .flag(false))
            case "n": return try word("null", .null)
            default: return try number()
            }
        }

        private mutating func object(_ depth: Int) throws -> JSON {
            var found: [String: JSON] = [:]
            // Swift takes names as equal that differ in bytes; Python and Java do not.
            var known = Set<[UInt32]>()
            at += 1
            space()
            if skip("}") { return .object(found) }
            repeat {
                space()
                let key = try string()
                space()
                try expect(":")
                guard known.insert(key.unicodeScalars.map(\.value)).inserted, found[key] == nil else {
                    throw wrong("key '\(key)' more than once")
                }
                found[key] = try value(depth + 1)
                space()
            } while skip(",")
            try expect("}")
            return .object(found)
        }

        private mutating func list(_ depth: Int) throws -> JSON {
            var found: [JSON] = []
            at += 1
            space()
            if skip("]") { return .list(found) }
            repeat {
                found.append(try value(depth + 1))
                space()
            } while skip(",")
            try expect("]")
            return .list(found)
        }

        private mutating func string() throws -> String {
            try expect("\"")
            var out: [UInt16] = []
            while try peek() != "\"" {
                let scalar = text[at]
                at += 1
                if scalar.value < 0x20 { throw wrong("a control character in text") }
                if scalar == "\\" {
                    out.append(try escape())
                } else {
                    out += Array(String(scalar).utf16)
                }
            }
            at += 1
            return String(decoding: out, as: UTF16.self)
        }

        private mutating func escape() throws -> UInt16 {
            let scalar = try peek()
            at += 1
            let plain: [Unicode.Scalar: UInt16] = [
                "\"": 34, "\\": 92, "/": 47, "n": 10, "r": 13, "t": 9, "b": 8, "f": 12,
            ]
            if let found = plain[scalar] { return found }
            let digits = text[at..<min(at + 4, text.count)]
            guard scalar == "u", digits.count == 4,
                digits.allSatisfy({ $0.properties.isASCIIHexDigit }),
                let code = UInt16(String(String.UnicodeScalarView(digits)), radix: 16)
            else { throw wrong("an unknown escape") }
            at += 4
            return code
        }

        private mutating func word(_ name: String, _ value: JSON) throws -> JSON {
            let scalars = Array(name.unicodeScalars)
            guard at + scalars.count <= text.count, Array(text[at..<at + scalars.count]) == scalars else {
                throw wrong("an unknown word")
            }
            at += scalars.count
            return value
        }

        private mutating func number() throws -> JSON {
            let start = at
            while at < text.count, "+-.eE0123456789".unicodeScalars.contains(text[at]) { at += 1 }
            let digits = String(String.UnicodeScalarView(text[start..<at]))
            let form = "^-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?$"
            guard digits.range(of: form, options: .regularExpression) != nil else { throw wrong("no value") }
            if digits.contains(where: { ".eE".contains($0) }) {
                guard let value = Double(digits) else { throw wrong("a number out of range") }
                return .number(value)
            }
            guard let value = Int(digits) else { throw wrong("a number out of range") }
            return .whole(value)
        }

        private func peek() throws -> Unicode.Scalar {
            guard at < text.count else { throw wrong("its end") }
            return text[at]
        }

        private mutating func skip(_ scalar: Unicode.Scalar) -> Bool {
            let there = at < text.count && text[at] == scalar
            at += there ? 1 : 0
            return there
        }

        private mutating func expect(_ scalar: Unicode.Scalar) throws {
            guard skip(scalar) else { throw wrong("no '\(scalar)'") }
        }
    }
}

extension String {
    /// Nil where the bytes are not UTF-8, which Foundation would repair.
    init?(validatingUTF8 data: Data) {
        let text = String(decoding: data, as: UTF8.self)
        guard Data(text.utf8) == data else { return nil }
        self = text
    }
}
