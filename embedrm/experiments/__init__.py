"""Whole studies from data to report: the tour, and one module for each reproduced paper."""
