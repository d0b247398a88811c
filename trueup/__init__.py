"""trueup: tune language models on preferences, and know whether it worked."""

__version__ = "0.1.0"
