"""Calculations behind the documentation's numbers; nothing here is needed by a running stack."""
