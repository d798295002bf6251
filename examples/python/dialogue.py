"""A dialogue with its history."""
from openai import OpenAI

client = OpenAI()
history = [{"role": "system", "content": "You are a helpful assistant."}]
for question in ["What is the capital of France?", "And what is it famous for?"]:
    history.append({"role": "user", "content": question})
    answer = client.chat.completions.create(
        model="gpt-3.5-turbo-instruct", messages=history, max_completion_tokens=80, temperature=0
    )
    history.append(answer.choices[0].message)
    print(f"> {question}\n{history[-1].content.strip()}")
