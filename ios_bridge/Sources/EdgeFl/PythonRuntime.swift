// SPDX-License-Identifier: Apache-2.0
import CPython
import Foundation

/// What Python raised, as `DataShape: x has ...`, or why it did not start.
public struct PythonError: Error, CustomStringConvertible, Equatable {
    public let description: String
}

/// CPython inside the process, through its C API. Started once; any thread may call.
public final class PythonRuntime {
    private static let lock = NSLock()
    private static var started: PythonRuntime?

    /// Starts Python, or returns the one that runs.
    ///
    /// - Parameters:
    ///   - home: Python's own files; nil takes those of the system, which an iPhone does not have.
    ///   - paths: folders with edgefl and NumPy, looked at before any other.
    public static func start(home: String?, paths: [String]) throws -> PythonRuntime {
        lock.lock()
        defer { lock.unlock() }
        if let started { return started }
        let made = try PythonRuntime(home: home, paths: paths)
        started = made
        return made
    }

    private init(home: String?, paths: [String]) throws {
        // Paths and text are UTF-8, whatever the process's locale; iOS wants it so too.
        var before = PyPreConfig()
        PyPreConfig_InitIsolatedConfig(&before)
        before.utf8_mode = 1
        try check(Py_PreInitialize(&before))
        var config = PyConfig()
        PyConfig_InitIsolatedConfig(&config)
        defer { PyConfig_Clear(&config) }
        config.write_bytecode = 0
        config.install_signal_handlers = 0
        if let home {
            try check(edgefl_set_home(&config, home))
        }
        try check(Py_InitializeFromConfig(&config))
        for path in paths.reversed() {
            guard let list = PySys_GetObject("path"), let entry = PyUnicode_FromString(path) else {
                throw PythonError(description: "Python has no sys.path")
            }
            PyList_Insert(list, 0, entry)
            Py_DecRef(entry)
        }
        // From here on every call takes the lock for itself.
        PyEval_SaveThread()
    }

    /// Calls a function of a module; arguments are text, bytes, whole numbers, truth values or `Host` objects.
    func call(_ module: String, _ function: String, _ arguments: [PythonValue]) throws -> PythonValue {
        let state = PyGILState_Ensure()
        defer { PyGILState_Release(state) }
        guard let found = PyImport_ImportModule(module) else { throw raised() }
        defer { Py_DecRef(found) }
        guard let callable = PyObject_GetAttrString(found, function) else { throw raised() }
        defer { Py_DecRef(callable) }
        guard let tuple = PyTuple_New(arguments.count) else { throw raised() }
        defer { Py_DecRef(tuple) }
        for (i, argument) in arguments.enumerated() {
            guard let value = try argument.object() else { throw raised() }
            PyTuple_SetItem(tuple, i, value)  // takes the reference
        }
        guard let result = PyObject_CallObject(callable, tuple) else { throw raised() }
        defer { Py_DecRef(result) }
        return try PythonValue(result)
    }
}

/// What crosses the seam.
enum PythonValue {
    case none
    case text(String)
    case bytes(Data)
    case whole(Int)
    case flag(Bool)
    case engine(Engine)
    case device(Device)
    case cipher(ExampleCipher)

    init(_ object: UnsafeMutablePointer<PyObject>) throws {
        if edgefl_is_bytes(object) != 0 {
            self = .bytes(contentOf(bytes: object))
        } else if edgefl_is_text(object) != 0 {
            self = .text(try contentOf(text: object))
        } else if PyBool_FromLong(1) == object {
            self = .flag(true)
        } else if PyBool_FromLong(0) == object {
            self = .flag(false)
        } else if edgefl_none() == object {
            self = .none
        } else {
            let value = PyLong_AsLong(object)
            if PyErr_Occurred() != nil { throw raised() }
            self = .whole(value)
        }
    }

    /// A new reference.
    func object() throws -> UnsafeMutablePointer<PyObject>? {
        switch self {
        case .none: return edgefl_none()
        case .text(let value): return newText(value)
        case .bytes(let value): return newBytes(value)
        case .whole(let value): return PyLong_FromLong(value)
        case .flag(let value): return value ? edgefl_true() : edgefl_false()
        case .engine(let value): return try Callbacks.engine(value)
        case .device(let value): return try Callbacks.device(value)
        case .cipher(let value): return try Callbacks.cipher(value)
        }
    }
}

func newText(_ value: String) -> UnsafeMutablePointer<PyObject>? {
    Array(value.utf8).withUnsafeBufferPointer { buffer in
        buffer.withMemoryRebound(to: CChar.self) {
            PyUnicode_DecodeUTF8($0.baseAddress, $0.count, "strict")
        }
    }
}

func newBytes(_ value: Data) -> UnsafeMutablePointer<PyObject>? {
    value.withUnsafeBytes { raw in
        PyBytes_FromStringAndSize(raw.bindMemory(to: CChar.self).baseAddress, value.count)
    }
}

func contentOf(bytes object: UnsafeMutablePointer<PyObject>) -> Data {
    var start: UnsafeMutablePointer<CChar>?
    var count = 0
    guard PyBytes_AsStringAndSize(object, &start, &count) == 0, let start else { return Data() }
    return Data(bytes: start, count: count)
}

func contentOf(text object: UnsafeMutablePointer<PyObject>) throws -> String {
    var count = 0
    guard let start = PyUnicode_AsUTF8AndSize(object, &count) else { throw raised() }
    return String(decoding: UnsafeRawBufferPointer(start: start, count: count), as: UTF8.self)
}

/// The exception that Python has set, cleared.
func raised() -> PythonError {
    guard let error = PyErr_GetRaisedException() else { return PythonError(description: "Python failed") }
    defer { Py_DecRef(error) }
    let kind = PyObject_GetAttrString(PyObject_Type(error), "__name__")
    let said = PyObject_Str(error)
    let name = kind.flatMap { try? contentOf(text: $0) } ?? "Error"
    let words = said.flatMap { try? contentOf(text: $0) } ?? ""
    return PythonError(description: "\(name): \(words)")
}

private func check(_ status: PyStatus) throws {
    if PyStatus_Exception(status) != 0 {
        throw PythonError(description: status.err_msg.map { String(cString: $0) } ?? "Python does not start")
    }
}
