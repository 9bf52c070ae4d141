// SPDX-License-Identifier: Apache-2.0
import CPython
import Foundation

/// Swift objects as Python ones. Each is a module-like namespace whose functions find their object in a capsule,
/// so no Python class has to be laid out by hand.
enum Callbacks {
    static func engine(_ engine: Engine) throws -> UnsafeMutablePointer<PyObject> {
        try namespace(
            engine,
            [
                ("describe", { owner, _ in
                    newText((owner as! Engine).describe())
                }),
                ("run", { owner, arguments in
                    guard let path = try argument(arguments, 0), let signature = try argument(arguments, 1),
                        let pack = PyTuple_GetItem(arguments, 2)
                    else { throw raised() }
                    let tensors = contentOf(bytes: pack)
                    // The engine may take long, and has no need of Python.
                    let state = PyEval_SaveThread()
                    let made = Result {
                        try (owner as! Engine).run(artifact: path, signature: signature, tensors: tensors)
                    }
                    PyEval_RestoreThread(state)
                    return newBytes(try made.get())
                }),
            ])
    }

    static func device(_ device: Device) throws -> UnsafeMutablePointer<PyObject> {
        try namespace(
            device,
            [
                ("reading", { owner, _ in newText((owner as! Device).reading()) }),
                ("stopped", { owner, _ in
                    (owner as! Device).stopped() ? edgefl_true() : edgefl_false()
                }),
                ("notify", { owner, arguments in
                    guard let event = try argument(arguments, 0) else { throw raised() }
                    (owner as! Device).notify(event)
                    return edgefl_none()
                }),
            ])
    }

    static func cipher(_ cipher: ExampleCipher) throws -> UnsafeMutablePointer<PyObject> {
        try namespace(
            cipher,
            [
                ("seal", { owner, arguments in
                    let (plain, about) = try pair(arguments)
                    return newBytes(try (owner as! ExampleCipher).seal(plain, about: about))
                }),
                ("open", { owner, arguments in
                    let (sealed, about) = try pair(arguments)
                    return newBytes(try (owner as! ExampleCipher).open(sealed, about: about))
                }),
            ])
    }

    typealias Body = (AnyObject, UnsafeMutablePointer<PyObject>?) throws -> UnsafeMutablePointer<PyObject>?

    /// What a capsule holds: the object and what to do with it.
    private final class Function {
        let owner: AnyObject
        let body: Body

        init(_ owner: AnyObject, _ body: @escaping Body) {
            self.owner = owner
            self.body = body
        }
    }

    // Python compares and keeps the pointer, so the name must outlive every call.
    private static let capsule = UnsafePointer(strdup("edgefl.function"))

    /// One definition serves all functions: what they do is in the capsule they are bound to.
    private static let definition: UnsafeMutablePointer<PyMethodDef> = {
        let made = UnsafeMutablePointer<PyMethodDef>.allocate(capacity: 1)
        made.initialize(
            to: PyMethodDef(
                ml_name: UnsafePointer(strdup("swift")), ml_meth: { bound, arguments in
                    guard let bound, let raw = PyCapsule_GetPointer(bound, Callbacks.capsule) else { return nil }
                    let function = Unmanaged<Function>.fromOpaque(raw).takeUnretainedValue()
                    do {
                        return try function.body(function.owner, arguments)
                    } catch {
                        PyErr_SetString(PyExc_RuntimeError, "\(error)")
                        return nil
                    }
                }, ml_flags: METH_VARARGS, ml_doc: nil))
        return made
    }()

    private static func namespace(_ owner: AnyObject, _ functions: [(String, Body)]) throws
        -> UnsafeMutablePointer<PyObject>
    {
        guard let types = PyImport_ImportModule("types") else { throw raised() }
        defer { Py_DecRef(types) }
        guard let kind = PyObject_GetAttrString(types, "SimpleNamespace") else { throw raised() }
        defer { Py_DecRef(kind) }
        guard let made = PyObject_CallNoArgs(kind) else { throw raised() }
        for (name, body) in functions {
            let held = Unmanaged.passRetained(Function(owner, body)).toOpaque()
            let bound = PyCapsule_New(held, capsule) { capsule in
                guard let raw = PyCapsule_GetPointer(capsule, Callbacks.capsule) else { return }
                Unmanaged<Function>.fromOpaque(raw).release()
            }
            guard let bound, let function = PyCFunction_NewEx(definition, bound, nil) else { throw raised() }
            Py_DecRef(bound)
            guard PyObject_SetAttrString(made, name, function) == 0 else { throw raised() }
            Py_DecRef(function)
        }
        return made
    }

    private static func argument(_ tuple: UnsafeMutablePointer<PyObject>?, _ at: Int) throws -> String? {
        guard let tuple, let value = PyTuple_GetItem(tuple, at) else { return nil }
        return try contentOf(text: value)
    }

    private static func pair(_ tuple: UnsafeMutablePointer<PyObject>?) throws -> (Data, Data) {
        guard let tuple, let first = PyTuple_GetItem(tuple, 0), let second = PyTuple_GetItem(tuple, 1) else {
            throw raised()
        }
        return (contentOf(bytes: first), contentOf(bytes: second))
    }
}
