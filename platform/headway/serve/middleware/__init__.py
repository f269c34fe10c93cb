"""The middleware that a request passes on its way to the engine, and its response on the way back."""
