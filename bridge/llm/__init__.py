"""Language models behind the Responses API. Alone in importing `openai`."""
