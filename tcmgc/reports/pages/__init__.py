"""Pages that show a model's behaviour: one self-contained HTML file each."""
