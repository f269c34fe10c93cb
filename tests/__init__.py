"""The tests of Headway."""
