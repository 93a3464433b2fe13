"""WHAT HAPPENS: one folder per stage, pure modules and one ``steps.py`` of Prefect tasks each."""
