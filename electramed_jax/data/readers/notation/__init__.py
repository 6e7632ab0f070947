"""Notation of formulas, identifiers, languages and licences: functions of text, without input."""
