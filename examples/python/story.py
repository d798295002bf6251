"""A story, printed while it comes."""
from openai import OpenAI

client = OpenAI()  # OPENAI_BASE_URL and OPENAI_API_KEY say where the server is, and who asks.
for chunk in client.completions.create(
    model="text-davinci-002", prompt="Tell me a story about a robot.", max_tokens=150, temperature=0.5, stream=True
):
    print(chunk.choices[0].text, end="", flush=True)
print()
