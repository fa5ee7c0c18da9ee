/* What every translated function may call: errors, arithmetic as in Python, arrays.
 *
 * Python.h is not needed: the stable ABI of CPython 3.11 and later is declared in `abi.h`, so that
 * a compiler alone is enough and one library serves all versions.
 */
#include <math.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Errors leave through the wrapper that Python called; what was allocated is freed there. */
enum { NO_ERROR, ZERO_DIVISION, NOT_AN_INTEGER, OUT_OF_BOUNDS, NO_MEMORY };
static _Thread_local jmp_buf escape;

#if defined(__GNUC__)
#define COLD __attribute__((cold, noinline, noreturn))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
#define COLD
#define UNLIKELY(x) (x)
#endif

COLD static void fail(int why) { longjmp(escape, why); }

static inline double divide(double a, double b) {
    if (UNLIKELY(b == 0.0)) fail(ZERO_DIVISION);
    return a / b;
}

static inline int64_t floor_div(int64_t a, int64_t b) {
    if (UNLIKELY(b == 0)) fail(ZERO_DIVISION);
    int64_t q = a / b;
    return q - ((a % b != 0) & ((a < 0) != (b < 0)));
}

static inline int64_t floor_mod(int64_t a, int64_t b) {
    if (UNLIKELY(b == 0)) fail(ZERO_DIVISION);
    int64_t r = a % b;
    return r + ((r != 0) & ((r < 0) != (b < 0)) ? b : 0);
}

static inline int64_t to_int(double x) {
    if (UNLIKELY(!(fabs(x) < 9.2e18))) fail(NOT_AN_INTEGER);
    return (int64_t)x;
}

/* Of equals, and beside what is no number, the first: as Python does. */
static inline double min_f(double a, double b) { return b < a ? b : a; }
static inline double max_f(double a, double b) { return b > a ? b : a; }
static inline int64_t min_i(int64_t a, int64_t b) { return b < a ? b : a; }
static inline int64_t max_i(int64_t a, int64_t b) { return b > a ? b : a; }
static inline double power_2(double x) { return x * x; }
static inline double power_3(double x) { return x * x * x; }
static inline double power_4(double x) { return (x * x) * (x * x); }

/* Memory: freed all at once where the outermost call, or one that returns no array, ends. */
typedef struct block { struct block *before; double align; } block;
static _Thread_local block *newest = NULL;

static void *fresh_or_null(int64_t bytes, bool clear) {
    size_t all = sizeof(block) + (size_t)(bytes > 0 ? bytes : 0);
    block *one = clear ? calloc(1, all) : malloc(all);
    if (UNLIKELY(one == NULL)) return NULL;
    one->before = newest;
    newest = one;
    return one + 1;
}

static void *fresh(int64_t items, size_t size, bool clear) {
    void *memory = fresh_or_null(items * (int64_t)size, clear);
    if (UNLIKELY(memory == NULL)) fail(NO_MEMORY);
    return memory;
}

static void release(block *last) {
    while (newest != last) {
        block *before = newest->before;
        free(newest);
        newest = before;
    }
}

#ifdef CHECK_BOUNDS
static inline int64_t within(int64_t i, int64_t n) {
    if (UNLIKELY(i < 0 || i >= n)) fail(OUT_OF_BOUNDS);
    return i;
}
#else
#define within(i, n) (i)
#endif

/* Arrays: n elements an axis; s elements from one row to the next; the last axis is contiguous. */
#define AT1(a, i) ((a).p[within(i, (a).n0)])
#define AT2(a, i, j) ((a).p[within(i, (a).n0) * (a).s0 + within(j, (a).n1)])
#define AT3(a, i, j, k) \
    ((a).p[within(i, (a).n0) * (a).s0 + within(j, (a).n1) * (a).s1 + within(k, (a).n2)])

#define ARRAYS(T, item) \
    typedef struct { T *p; int64_t n0; } item##_1; \
    typedef struct { T *p; int64_t n0, n1, s0; } item##_2; \
    typedef struct { T *p; int64_t n0, n1, n2, s0, s1; } item##_3; \
    static inline T item_##item##_1(item##_1 a, int64_t i) { return AT1(a, i); } \
    static inline item##_1 row_##item##_2(item##_2 a, int64_t i) { \
        return (item##_1){a.p + within(i, a.n0) * a.s0, a.n1}; \
    } \
    static inline item##_2 row_##item##_3(item##_3 a, int64_t i) { \
        return (item##_2){a.p + within(i, a.n0) * a.s0, a.n1, a.n2, a.s1}; \
    } \
    static inline item##_1 part_##item##_1(item##_1 a, int64_t start, int64_t stop) { \
        stop = stop > a.n0 ? a.n0 : stop; \
        start = start > stop ? stop : start; \
        return (item##_1){a.p + start, stop - start}; \
    } \
    static inline item##_1 empty_##item##_1(int64_t n) { \
        return (item##_1){fresh(n, sizeof(T), false), n}; \
    } \
    static inline item##_1 zeros_##item##_1(int64_t n) { \
        return (item##_1){fresh(n, sizeof(T), true), n}; \
    } \
    static inline item##_1 ones_##item##_1(int64_t n) { \
        item##_1 a = empty_##item##_1(n); \
        for (int64_t i = 0; i < n; i++) a.p[i] = 1; \
        return a; \
    } \
    static inline item##_2 empty_##item##_2(int64_t n, int64_t m) { \
        return (item##_2){fresh(n * m, sizeof(T), false), n, m, m}; \
    } \
    static inline item##_2 zeros_##item##_2(int64_t n, int64_t m) { \
        return (item##_2){fresh(n * m, sizeof(T), true), n, m, m}; \
    } \
    static inline item##_1 copy_##item##_1(item##_1 a) { \
        item##_1 b = empty_##item##_1(a.n0); \
        memcpy(b.p, a.p, (size_t)a.n0 * sizeof(T)); \
        return b; \
    } \
    static inline item##_1 flat_##item##_2(item##_2 a) { \
        item##_1 b = empty_##item##_1(a.n0 * a.n1); \
        for (int64_t i = 0; i < a.n0; i++) \
            memcpy(b.p + i * a.n1, a.p + i * a.s0, (size_t)a.n1 * sizeof(T)); \
        return b; \
    }

ARRAYS(double, f8)
ARRAYS(int64_t, i8)
ARRAYS(int32_t, i4)
ARRAYS(bool, b1)

static inline double sum_f8_1(f8_1 a) {
    double total = 0.0;
    for (int64_t i = 0; i < a.n0; i++) total += a.p[i];
    return total;
}

/* Where x goes so that a stays ascending, before its equals. */
static inline int64_t search_sorted(f8_1 a, double x) {
    int64_t low = 0, high = a.n0;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (a.p[middle] < x) low = middle + 1;
        else high = middle;
    }
    return low;
}
