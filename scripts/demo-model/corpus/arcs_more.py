"""Plot arcs of the story grammar, part two; see arcs.py for the form and the slots."""

CONTEST = [
    ["Every year there was {contest} {place_in}.", "Soon it was time for {contest}.", "Everyone was talking about {contest}."],
    ["{N} practised every day, because {he} wanted to win.", "{N} wanted to win more than anything.", "{N} was not the best, but {he} wanted to try."],
    ["\"You will never win,\" said {fT}. \"I am much better than you.\"", "{fT} laughed. \"I always win,\" {fhe} said.", "{fT} had won every year, and {fhe} was very proud of it."],
    ["The big day came, and {weather}.", "On the day itself, {weather}, and everybody came to watch.", "At last the day was there."],
    ["{fN} was far ahead. But {fhe} was so sure of winning that {fhe} did not look where {fhe} was going, and fell.",
     "In the middle of it all, {fN} hurt {fhis} foot and had to stop.", "Suddenly {fN} got stuck and could not go on."],
    ["{N} could have won now. But {he} stopped.", "{N} saw it. {He} thought for a moment and turned around.", "Everyone thought that {N} would go on and win, but {he} did not."],
    ["\"Come,\" said {N}, \"I will help you.\"", "\"Are you hurt?\" asked {N}, and held out {his} hand.", "{N} helped {fhim} up without a word."],
    ["They finished together, the last of all.", "Side by side they came to the end.", "Somebody else won the prize that day."],
    ["But the people clapped louder for {N} than for the winner.", "\"Why did you help me?\" asked {fN}. \"Because you needed it,\" said {N}.", "{fN} was ashamed. \"I am sorry that I laughed at you,\" {fhe} said."],
    ["After that, {fN} never laughed at anyone again.", "From then on, they practised together.", "{N} had lost the prize, but {he} had won a friend."],
]

TRUTH = [
    ["One {time}, {N} was playing in the house, although {his} {adult} had said not to.", "One day, {N} was running through the kitchen.", "{N} was throwing {acolour} ball against the wall."],
    ["Crash! The {broken} fell down and broke.", "Suddenly there was a loud crash. The {broken} was broken.", "{He} was not careful, and the {broken} fell to the floor."],
    ["{N} was frightened and hid the pieces {hiding}.", "{N} quickly hid the pieces. Nobody had seen it.", "\"Oh no,\" whispered {N}. {He} swept the pieces {hiding}."],
    ["In the evening, {his} {adult} asked, \"Who broke the {broken}?\"", "\"What happened to the {broken}?\" asked {his} {adult}.", "{His} {adult} came home and saw at once that the {broken} was gone."],
    ["\"It was {culprit},\" said {N}.", "\"I do not know,\" said {N}. \"Maybe it was {culprit}.\"", "{N} looked at the floor. \"It was {culprit},\" {he} said."],
    ["That night, {N} could not sleep.", "But the lie lay in {his} stomach like a stone.", "{N} did not enjoy {his} {food} at all that evening."],
    ["{He} talked to {fT} about it. \"Tell the truth,\" said {fN}. \"Then you will feel better.\"", "\"You should say what happened,\" said {his} friend {fT}.", "{fT} saw {his} sad face. \"A lie only grows,\" {fhe} said."],
    ["So {N} went to {his} {adult}. \"It was me,\" {he} said. \"I am sorry.\"", "The next morning, {N} told {his} {adult} everything.", "At last {he} said, \"I broke the {broken}, and then I lied. I am very sorry.\""],
    ["{His} {adult} was quiet for a moment, and then smiled. \"Thank you for telling me,\" came the answer.", "\"I am glad that you told me the truth,\" said {his} {adult}.", "{His} {adult} gave {him} a hug and said, \"That was brave of you.\""],
    ["Together they glued the pieces, and {N} felt light again.", "They made a new one together, and it was even more beautiful.", "{N} helped in the garden to make up for it, and everything was good again."],
]

QUEST = [
    ["{N} had always wanted to see {quest}.", "One evening, {his} {adult} told {him} about {quest}.", "\"Have you ever seen {quest}?\" {N} asked everyone, but nobody had."],
    ["So one {time}, {he} packed some {food} and set out.", "The next day, {he} took {his} {colour} {thing} and left.", "\"I will find it,\" {he} said, and started walking."],
    ["{His} friend {fT} came along.", "\"Take me with you,\" said {fT}.", "On the way {he} met {fT}, who wanted to come too."],
    ["They walked through the forest and over three hills.", "They crossed a river on slippery stones.", "For two days they followed the path."],
    ["Then they met {guide}. \"Which way is it to {quest}?\" asked {N}.", "At the crossroads they found {guide} and asked the way.", "Near a bridge sat {guide}."],
    ["\"Go where the wind comes from,\" was the answer, \"and be kind to those you meet.\"", "\"It is not far,\" {guide_short} said, \"but you must walk slowly and look well.\"", "\"Follow the stream,\" {guide_short} told them, \"and do not turn back.\""],
    [0.7, "At night it was cold, and they slept close together.", "{fN} was tired and wanted to go home, but {N} gave {fhim} the last of the {food}.", "They got lost once, but {fN} found the path again."],
    ["And then, early in the morning, they saw it: {quest}!", "When they came over the last hill, there it was: {quest}.", "Suddenly {N} stood still. In front of them was {quest}."],
    ["It was more beautiful than in any story.", "They sat down and looked at it for a long time without a word.", "\"Oh,\" was all that {N} could say."],
    ["Then they went home and told everybody about it.", "They took nothing with them but a small stone, to remember it by.", "\"Now let us go home,\" said {N}, and they went back hand in hand."],
]

PARTY = [
    ["It was {N}'s birthday.", "Tomorrow was {N}'s birthday, and {he} could hardly wait.", "When {N} woke up, {he} knew at once: today was {his} birthday!"],
    ["But nobody seemed to remember it.", "{He} ran outside, but nobody said a word about it.", "At breakfast, {his} {adult} only said, \"Good morning.\""],
    ["{N} went to {fT}. \"I have no time today,\" {fhe} said quickly.", "{He} asked {fT} to play, but {fhe} shook {fhis} head and ran off.", "Even {his} best friend {fT} was busy."],
    ["{N} was very sad. \"They have all forgotten me,\" {he} thought.", "{N} walked {place_in} alone and kicked a stone.", "{He} sat down and looked at the clouds."],
    ["In the evening {he} went home. The house was dark.", "When it grew dark, {he} went slowly home.", "At last it was time to go home."],
    ["{He} opened the door, and suddenly there was light everywhere!", "As {he} came in, a hundred little lamps went on.", "\"Surprise!\" shouted many voices at once."],
    ["There were all {his} friends, and {fN} in front of them.", "Everybody was there, with {food} and music.", "The whole room was full of flowers and laughing faces."],
    ["{fN} gave {him} {gift}. \"I worked on it all day,\" {fhe} said.", "\"This is for you,\" said {fN}, and held out {gift}.", "On the table lay {gift}, made by {fN}."],
    ["\"So that is why you had no time!\" said {N}, and laughed.", "{N} was so happy that {he} could not speak.", "\"And I thought that you had forgotten me,\" said {N}."],
    ["They sang and danced until late at night.", "It was the best birthday {he} had ever had.", "They ate {food} and told stories until the moon stood high."],
]

SEED = [
    ["One spring day, {N} got a {seedling} from {his} {adult}.", "In spring, {N} found a tiny {seedling} {hiding}.", "{His} {adult} put a small {seedling} into {his} hand."],
    ["\"If you take care of it, it will become {aplant},\" said {his} {adult}.", "\"This will be {aplant} one day,\" {he} was told.", "\"What will it be?\" asked {N}. \"{aplant_cap},\" was the answer."],
    ["{N} put it into the ground and gave it water.", "{He} dug a hole, put it in, and covered it with earth.", "Together with {fT}, {he} planted it {place_in}."],
    ["The next day {he} looked, but there was nothing.", "{N} waited one day, two days, three days. Nothing happened.", "Every morning {he} ran out to look, but saw only brown earth."],
    ["\"It is broken,\" said {N}. \"It is only sleeping,\" said {fN}.", "\"Why does it take so long?\" {he} asked. \"You must be patient,\" said {fN}.", "{fN} said, \"Sing to it. That always helps.\""],
    ["So {N} kept on watering it, day after day.", "{N} pulled out the weeds and chased the snails away.", "When it was hot, {he} brought water, and when it was cold, {he} covered it with leaves."],
    ["Then, one {time}, there was a tiny green leaf.", "And one day, something green peeped out of the earth.", "After a week there was a little green point."],
    ["\"It is alive!\" cried {N}.", "{N} danced around it with joy.", "{N} ran to get {fN}. \"Look, look!\""],
    ["It grew and grew, all through the summer.", "Soon it was as tall as {N}, and then even taller.", "Week after week it became bigger."],
    ["In the end it was the most beautiful {plant} {place_in}.", "And when autumn came, {N} had a wonderful {plant}.", "{N} gave a part of it to {fN}, because {fhe} had helped {him} to wait."],
]

MONSTER = [
    ["Every night, {N} heard {sound} outside.", "One night, {N} woke up because of {sound}.", "One dark night, there was {sound} {hiding}."],
    ["\"It is a {monster}!\" everybody said.", "\"That must be the {monster},\" {his} {adult} whispered.", "People said that a {monster} lived there."],
    ["Nobody dared to go out any more.", "All the doors were locked, and all the windows were shut.", "The others were so afraid that they hid under their beds."],
    ["But {N} was curious. {He} took a lantern and asked {fT} to come along.", "{N} and {his} friend {fT} wanted to know the truth.", "\"Let us go and look,\" {N} said to {fT}."],
    ["They walked on the tips of their toes. It was very dark.", "The wind blew, and the shadows moved.", "\"Are you scared?\" asked {fN}. \"A little,\" said {N}."],
    ["Then they saw two big eyes.", "Suddenly something moved {hiding}.", "There it was, and it was huge!"],
    ["\"Please do not hurt me,\" said the {monster} in a small voice.", "But the {monster} was crying.", "\"Who are you?\" asked {N}. \"I am only a {monster},\" was the sad answer, \"and I am all alone.\""],
    ["\"Why do you make that noise?\" asked {N}. \"I am hungry, and I cannot find my way home,\" said the {monster}.", "\"Everyone runs away from me,\" said the {monster}, \"and I only want to play.\"", "\"I have a thorn in my foot,\" said the {monster}. \"It hurts so much.\""],
    ["{N} and {fN} helped as well as they could and gave the {monster} some {food}.", "So {N} held the lantern, and {fN} helped the {monster}.", "\"We will help you,\" said {N}, and so they did."],
    ["Since then, nobody is afraid at night, for the {monster} watches over them all.", "The {monster} thanked them, and they became good friends.", "The next day, the {monster} came to dinner, and everybody liked it."],
]

CARE = [
    ["One {time}, {his} {adult} was ill and had to stay in bed.", "One cold day, {his} {adult} woke up with a fever.", "It was winter, and {his} {adult} could not get up."],
    ["\"Today I will do the work,\" said {N}.", "{N} wanted to help, but {he} had never done it alone.", "\"Do not worry,\" said {N}. \"I am big enough.\""],
    ["First {he} lit the fire, then {he} swept the floor.", "{He} fetched water from the well and wood from the shed.", "{He} washed the cups and fed the hens."],
    ["Then {he} tried to cook, but the soup tasted of nothing at all.", "But the pot was heavy, and half of the water ran over the floor.", "The fire went out three times."],
    ["{N} went to {fT} for help.", "Then {fT} looked in through the window.", "Luckily {fT} came by with some {food}."],
    ["\"You need salt and a little time,\" said {fN}, and showed {him} how.", "\"Let me help you,\" said {fN}, and together it was quickly done.", "{fN} knew a plant that is good for a fever, and they made tea from it."],
    ["{N} carried the bowl to the bed, very slowly, without spilling a drop.", "{N} put a flower on the tray and carried it in.", "{He} sat down by the bed and told a story."],
    ["{His} {adult} ate and smiled. \"That is the best meal of my life.\"", "\"Now I feel better already,\" said {his} {adult}.", "{His} {adult} slept well that night."],
    ["Three days later, {his} {adult} was well again.", "Soon there was singing in the house again.", "The next morning, the fever was gone."],
    ["\"What would I do without you?\" said {his} {adult}.", "{N} was tired, but very proud.", "As a thank you, there was {food} for {N} and {fN}."],
]

HOME = [
    ["One {time}, {N} went out to pick flowers.", "One day, {N} followed a butterfly away from the path.", "{His} {adult} had told {him} not to go far, but {N} forgot it."],
    ["{He} went further and further, and did not look back.", "It was so beautiful that {he} did not see how late it was.", "Here was a nicer flower, and there an even nicer one."],
    ["When {he} turned around, {he} did not know where {he} was.", "Suddenly all the trees looked the same.", "Then fog came up, and the path was gone."],
    ["\"Hello?\" called {N}. Nobody answered.", "{N} was cold, and {he} wanted to go home.", "{He} sat down on a stone and did not know what to do."],
    ["Then {fT} came out of the bushes.", "\"Are you lost?\" asked a voice. It was {fT}.", "After a while {he} saw a light. It was {fT} with a lantern."],
    ["\"I live here,\" said {fN}. \"Where is your home?\"", "\"Do not cry,\" said {fN}. \"What does it look like where you live?\"", "\"I know every tree here,\" {fhe} said. \"Tell me about your home.\""],
    ["\"There are {see1} and {see2},\" said {N}.", "{N} thought hard. \"There you can see {see1},\" {he} said, \"and {see2}.\"", "\"From our door you see {see1},\" {N} answered."],
    ["\"Then I know the way,\" said {fN}, and they started walking.", "\"That is not far,\" said {fN}. \"Come with me.\"", "{fN} laughed. \"That is just behind the hill!\""],
    ["Soon {N} saw {his} home. {His} {adult} was standing at the door.", "After an hour, {he} heard {his} {adult} calling.", "And there was the house, with a light in the window."],
    ["\"Where have you been?\" cried {his} {adult}, and held {him} tight.", "{N} fell into {his} {adult}'s arms.", "{fN} stayed for supper, and there was {food} for everyone."],
]

LATER = {"contest": CONTEST, "truth": TRUTH, "quest": QUEST, "party": PARTY, "seed": SEED, "monster": MONSTER,
         "care": CARE, "home": HOME}
