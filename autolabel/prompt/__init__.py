"""Boxes to questions."""
