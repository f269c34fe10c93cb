"""A property: whatever somebody writes into a store, commands change, read and delete only what they may."""
