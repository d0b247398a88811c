"""Typed configuration: the schema of every recipe, YAML files and command-line overrides."""
