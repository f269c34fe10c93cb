"""Tenants: their API keys and quotas, and what they have used."""
