"""The report: one offline HTML page, and its figures as PNG, SVG and CSV.

Every figure is a data function (`data`) and two renderers (`plotly_charts` for the page,
`matplotlib_charts` for papers) that share one description (`chart`).
"""
