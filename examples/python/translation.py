"""A translation."""
from openai import OpenAI

client = OpenAI()
prompt = "Translate this into French: Good morning, how are you?"
answer = client.completions.create(model="text-davinci-002", prompt=prompt, max_tokens=60, temperature=0)
print(answer.choices[0].text.strip())
