"""Measure the GPU in front of you: kernels, layers, launches, and the constants behind them.

`shapes` and `forms` say what is timed and what it costs in theory, `machine` and `timing` time it,
`campaign` walks the grid and survives interruption, `fit` turns timings into constants and
`records` writes them down. `dispatch` tests the asynchronous launch model and `serve_loop` serves
requests on the measured layers. PyTorch (extra `measure`) is imported only when kernels run.
"""
