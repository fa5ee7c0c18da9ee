"""Whole fleets: tables of goodput, the plan and its certificate, the check by simulation."""
