
static bool keep(PyObject *module, const char *name, PyObject *value) {
    bool kept = value != NULL && PyModule_AddObjectRef(module, name, value) == 0;
    if (value != NULL) Py_DecRef(value);
    return kept;
}

static int fill(PyObject *module) {
    PyObject *numpy = PyImport_ImportModule("numpy");
    if (numpy == NULL) return -1;
    numpy_empty = PyObject_GetAttrString(numpy, "empty");
    const char *const types[] = {"float64", "int64", "int32", "bool_"};
    for (int i = 0; i < 4; i++) numpy_types[i] = PyObject_GetAttrString(numpy, types[i]);
    Py_DecRef(numpy);
    bool fine = keep(module, "__doc__", PyUnicode_FromString(stamp));
    fine = fine && keep(module, "bind", PyCFunction_NewEx(&binder, NULL, NULL));
    for (int i = 0; fine && methods[i].name != NULL; i++) {
        char name[256];
        PyObject *from = PyUnicode_FromString(modules[i]);
        snprintf(name, sizeof name, "%s.%s", modules[i], methods[i].name);
        fine = keep(module, name, PyCFunction_NewEx(&methods[i], NULL, from));
        Py_DecRef(from);
    }
    return fine ? 0 : -1;
}

static struct { int slot; void *value; } slots[] = {{Py_mod_exec, (void *)fill}, {0, NULL}};
static PyModuleDef definition = {
    {1, NULL}, NULL, 0, NULL, "_loops", NULL, 0, NULL, slots, NULL, NULL, NULL};

/* In two phases, so that a library made anew is loaded anew. */
__attribute__((visibility("default"))) PyObject *PyInit__loops(void) {
    return PyModuleDef_Init(&definition);
}
