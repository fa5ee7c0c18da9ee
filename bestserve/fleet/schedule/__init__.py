"""A day, not a rate: how many instances of each role, window by window.

load       what arrives: windows of a rate and lengths; reading a CSV, recordings of traces
demand     who asks: streams of requests that share instances; offers: what may serve them
instances  what an instance of a pool is; runs: runs of a pool by itself
capacity   what one instance of each pool carries within the objectives, by kind of request
bursts     the same of a trace's own arrivals, window by window
attained   which share of a window's requests so many instances serve in time: an SLO over the day
terms      what a schedule must do, as numbers; failures: spares; accounts: what counts come to
programme  the cheapest schedule, or most load on given GPUs (mixed-integer, with its bound)
patterns   near it at once where streams may be served in several ways: cheapest patterns by window
splits     the best split of N GPUs into prefill and decode (dynamic programming)
policies   what others would do on the same load; forecasts and their worth; DOPD's ratio
playing    the simulator follows a schedule: stints of instances that start, drain, move, fail
answer     all of it, told as users see it
"""
