"""Who is let in, and what they may do: TLS, tokens and client certificates, and the permission that each method needs."""
