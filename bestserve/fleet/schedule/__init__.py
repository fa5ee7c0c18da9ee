"""A day, not a rate: how many instances of each role, window by window.

load       what arrives: windows of a rate and lengths, from a CSV or a trace
capacity   what one instance of each pool carries within the objectives, window by window
planning   the cheapest schedule (mixed-integer, with its bound) and the best split of N GPUs
policies   what others would do on the same load: a static fleet, thresholds, forecasts
playing    the simulator follows a schedule: instances start, drain and stop
"""
