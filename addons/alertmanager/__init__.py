"""Template of ``alertmanager.yml``."""
