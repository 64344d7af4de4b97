"""What a person looks at: tables, pictures and pages made from runs. ``python -m ripu.report`` is the command."""
