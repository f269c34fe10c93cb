"""Headway pretrains language models on clusters that preempt, and never loses or blurs progress."""

__version__ = "0.1.0"
