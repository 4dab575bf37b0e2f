"""Pulls tasks, drives workers and fixer, signs and submits."""
