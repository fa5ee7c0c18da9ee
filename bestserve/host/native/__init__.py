"""Inner loops as C: functions marked `njit` are translated, compiled and bound ahead of time.

The Python source stays the only one: it says what a loop does, runs as it stands where there is no
compiler (a hundred times slower), and is the referee of what the compiler makes of it. C is what is
left when types are known: a marked function takes and returns numbers, arrays and tuples of them,
as its annotations say, and uses what C has too: arithmetic, `math`, comparisons, `if`, `while`,
`for … in range`, views of rows, new arrays. What is not in this subset is refused with file and
line when the loops are built, so that nothing runs slowly in silence.

    program      what is marked: functions, constants and records that they use, callees first
    ranks        dimensions of arrays, from how they are indexed
    types        types, and their names in C
    expressions  expressions as C
    statements   statements and whole functions as C
    wrappers     what Python calls: arguments checked, results copied to NumPy arrays
    build        source to shared library: once for a wheel, or when sources have changed
    prelude.c    what every translated function may call
"""
