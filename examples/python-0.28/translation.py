"""A translation. Needs openai==0.28.1."""
import openai

prompt = "Translate this into French: Good morning, how are you?"
answer = openai.Completion.create(engine="text-davinci-002", prompt=prompt, max_tokens=60, temperature=0)
print(answer.choices[0].text.strip())
