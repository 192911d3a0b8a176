"""The demo services: small FastAPI apps that speak DataFlow's dialect."""
