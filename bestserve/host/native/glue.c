/* What wrappers share: arguments from Python, results to Python. */

enum { MOST_ARRAYS = 96 };

/* The buffers that a call holds, and copies of arrays whose last axis is not contiguous. */
typedef struct { Py_buffer views[MOST_ARRAYS]; int held; } frame;

static PyObject *numpy_empty, *numpy_types[4];
enum { F8, I8, I4, B1 };
static const char *const FORMATS[4] = {"d", "lq", "i", "?"};
static const size_t SIZES[4] = {sizeof(double), sizeof(int64_t), sizeof(int32_t), sizeof(bool)};

static bool take_double(PyObject *from, double *to) {
    *to = PyFloat_AsDouble(from);
    return *to != -1.0 || PyErr_Occurred() == NULL;
}

static bool take_int64_t(PyObject *from, int64_t *to) {
    *to = PyLong_AsLongLong(from);
    return *to != -1 || PyErr_Occurred() == NULL;
}

static bool take_bool(PyObject *from, bool *to) {
    int truth = PyObject_IsTrue(from);
    *to = truth == 1;
    return truth >= 0;
}

/* Take an array's buffer; its last axis is made contiguous, in a copy, if nothing is written. */
static Py_buffer *take_array(frame *f, PyObject *from, int item, int ndim, bool written) {
    Py_buffer *view = &f->views[f->held];
    int flags = PyBUF_FORMAT | PyBUF_STRIDES | (written ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(from, view, flags) < 0) return NULL;
    f->held++;
    if (view->ndim != ndim || view->format == NULL || view->format[1] != 0 ||
        strchr(FORMATS[item], view->format[0]) == NULL) {
        PyErr_Format(PyExc_TypeError, "expected %d-dimensional array of '%s', got %d of '%s'",
                     ndim, FORMATS[item], view->ndim, view->format ? view->format : "?");
        return NULL;
    }
    bool plain = view->shape[ndim - 1] <= 1 || view->strides[ndim - 1] == (Py_ssize_t)SIZES[item];
    for (int i = 0; i < ndim - 1; i++) plain &= view->strides[i] % (Py_ssize_t)SIZES[item] == 0;
    if (plain) return view;
    if (written) {
        PyErr_Format(PyExc_TypeError, "an array that is written must be contiguous");
        return NULL;
    }
    void *copy = fresh_or_null(view->len, false);
    if (copy == NULL) {
        PyErr_Format(PyExc_MemoryError, "no memory for a copy of %zd bytes", view->len);
        return NULL;
    }
    if (PyBuffer_ToContiguous(copy, view, view->len, 'C') < 0) return NULL;
    view->buf = copy;
    Py_ssize_t step = (Py_ssize_t)SIZES[item];
    for (int i = ndim - 1; i >= 0; i--) {
        view->strides[i] = step;
        step *= view->shape[i];
    }
    return view;
}

#define TAKE(T, item, number) \
    static bool take_##item##_1(frame *f, PyObject *from, bool written, item##_1 *to) { \
        Py_buffer *v = take_array(f, from, number, 1, written); \
        if (v != NULL) *to = (item##_1){v->buf, v->shape[0]}; \
        return v != NULL; \
    } \
    static bool take_##item##_2(frame *f, PyObject *from, bool written, item##_2 *to) { \
        Py_buffer *v = take_array(f, from, number, 2, written); \
        if (v != NULL) \
            *to = (item##_2){v->buf, v->shape[0], v->shape[1], \
                             v->strides[0] / (Py_ssize_t)sizeof(T)}; \
        return v != NULL; \
    } \
    static bool take_##item##_3(frame *f, PyObject *from, bool written, item##_3 *to) { \
        Py_buffer *v = take_array(f, from, number, 3, written); \
        if (v != NULL) \
            *to = (item##_3){v->buf, v->shape[0], v->shape[1], v->shape[2], \
                             v->strides[0] / (Py_ssize_t)sizeof(T), \
                             v->strides[1] / (Py_ssize_t)sizeof(T)}; \
        return v != NULL; \
    } \
    static PyObject *give_##item##_1(item##_1 a) { \
        return give_array(a.p, number, 1, a.n0, a.n0, false); \
    } \
    static PyObject *give_##item##_2(item##_2 a) { \
        return give_array(a.p, number, a.n0, a.n1, a.s0, true); \
    }

/* Return a new NumPy array [rows, n] if `two`, else [n]; step : elements between rows. */
static PyObject *give_array(const void *from, int item, int64_t rows, int64_t n, int64_t step,
                            bool two) {
    PyObject *shape = PyLong_FromLongLong(n);
    if (two) {
        PyObject *both = PyTuple_New(2);
        PyTuple_SetItem(both, 0, PyLong_FromLongLong(rows));
        PyTuple_SetItem(both, 1, shape);
        shape = both;
    }
    PyObject *array = PyObject_CallFunctionObjArgs(numpy_empty, shape, numpy_types[item], NULL);
    Py_DecRef(shape);
    Py_buffer view;
    if (array == NULL) return NULL;
    if (PyObject_GetBuffer(array, &view, PyBUF_STRIDES | PyBUF_WRITABLE) < 0) {
        Py_DecRef(array);
        return NULL;
    }
    size_t row = (size_t)n * SIZES[item];
    for (int64_t i = 0; i < rows; i++)
        memcpy((char *)view.buf + (size_t)i * row,
               (const char *)from + (size_t)(i * step) * SIZES[item], row);
    PyBuffer_Release(&view);
    return array;
}

TAKE(double, f8, F8)
TAKE(int64_t, i8, I8)
TAKE(int32_t, i4, I4)
TAKE(bool, b1, B1)

static PyObject *give_double(double x) { return PyFloat_FromDouble(x); }
static PyObject *give_int64_t(int64_t x) { return PyLong_FromLongLong(x); }
static PyObject *give_bool(bool x) { return PyBool_FromLong(x); }

static PyObject *leave(frame *f, PyObject *result) {
    for (int i = 0; i < f->held; i++) PyBuffer_Release(&f->views[i]);
    release(NULL);
    return result;
}

static PyObject *failed(int why, const char *name) {
    PyObject *const kinds[] = {NULL, PyExc_ZeroDivisionError, PyExc_ValueError, PyExc_IndexError,
                               PyExc_MemoryError};
    const char *const words[] = {"", "division by zero", "no integer: infinite or not a number",
                                 "index out of bounds", "no memory"};
    return PyErr_Format(kinds[why], "%s in compiled loop %s", words[why], name);
}

static bool has(PyObject *tuple, Py_ssize_t fields, const char *name) {
    if (PyTuple_Size(tuple) == fields) return true;
    PyErr_Clear();
    PyErr_Format(PyExc_TypeError, "expected a %s", name);
    return false;
}
