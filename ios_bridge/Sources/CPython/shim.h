// SPDX-License-Identifier: Apache-2.0
// Python's C API for Swift, which cannot call macros that are no constants.
#ifndef EDGEFL_CPYTHON_SHIM_H
#define EDGEFL_CPYTHON_SHIM_H

#define PY_SSIZE_T_CLEAN
// Before Python asks for more of the system's headers: Swift's own modules must see the same declarations.
#include <stdlib.h>
#include <sys/select.h>
#include <Python.h>

static inline int edgefl_is_bytes(PyObject *value) { return PyBytes_Check(value); }
static inline int edgefl_is_text(PyObject *value) { return PyUnicode_Check(value); }
static inline PyObject *edgefl_none(void) { return Py_NewRef(Py_None); }
static inline PyObject *edgefl_true(void) { return Py_NewRef(Py_True); }
static inline PyObject *edgefl_false(void) { return Py_NewRef(Py_False); }

// Swift may not pass a structure and a part of it at once.
static inline PyStatus edgefl_set_home(PyConfig *config, const char *home) {
    return PyConfig_SetBytesString(config, &config->home, home);
}

#endif
