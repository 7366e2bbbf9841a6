"""Prompts by name, for ``--template``."""

from dragonfly_cli.templates.template import all_templates, find_template, own_file

__all__ = ["all_templates", "find_template", "own_file"]
