// sluice send --stream as its users run it: a file, a server that is killed in the middle, Ctrl-C.
#include <sys/stat.h>

#include <filesystem>
#include <set>
#include <sstream>

#include "cli/send_stream_fixture.hpp"

namespace sluice::cli_test {
namespace {

TEST_F(SendStream, STREAM_15_a_file_takes_effect_once_however_often_it_is_sent) {
  const Serving server(folder.path(), {"--grpc-listen", "127.0.0.1:0"});
  write_rows(200);
  const Ran first = send(server, {"rows.jsonl", "kv.add", "--order-by", "key", "--json", "--window", "30"});
  ASSERT_EQ(first.status, 0) << first.err;
  const json told = json::parse(first.out);
  EXPECT_EQ(told["messages"], 200);
  EXPECT_EQ(told["succeeded"], 200);
  EXPECT_EQ(told["complete"], true);
  const Ran again = send(server, {"rows.jsonl", "kv.add", "--order-by", "key", "--json"});
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(json::parse(again.out)["done"], 200);
  EXPECT_EQ(json::parse(again.out)["done_before"], 200);
  EXPECT_EQ(told["done_before"], 0);
  const Ran told_again = send(server, {"rows.jsonl", "kv.add", "--order-by", "key"});
  EXPECT_THAT(told_again.out, HasSubstr("All of it was done before; nothing was sent."));
  EXPECT_THAT(told_again.err, Not(HasSubstr("200 sent")));
  expect_once_each(server, 200);
}

// Both have the same 64 bits under a hash that is not made for it: the second is no retry of the first.
TEST_F(SendStream, STREAM_15_no_file_can_be_made_to_pass_for_another) {
  const Serving server(folder.path(), {"--grpc-listen", "127.0.0.1:0"});
  for (const char* const key : {"ppppzudrnYcYaapaa0aa", "ppppuuDz9sciY351MBJo"}) {
    write("one.jsonl", row_of(key));
    const Ran ran = send(server, {"one.jsonl", "kv.add", "--json"});
    ASSERT_EQ(ran.status, 0) << ran.err;
    EXPECT_EQ(json::parse(ran.out)["id"].get<std::string>().size(), std::string("file-").size() + 64);
    EXPECT_EQ(row(server, key)["number"], 5) << key;
  }
}

TEST_F(SendStream, STREAM_15_an_id_that_cannot_name_a_stream_is_refused_before_anything_is_sent) {
  const Serving server(folder.path(), {"--grpc-listen", "127.0.0.1:0"});
  write_rows(20);
  for (const char* const id : {"a b", "a;b", "a,b", "\"a\""}) {
    const Ran ran = send(server, {"rows.jsonl", "kv.add", "--id", id});
    EXPECT_EQ(ran.status, 2) << ran.out << ran.err;
    EXPECT_THAT(ran.err, HasSubstr("without blanks"));
  }
  EXPECT_TRUE(row(server, "k0").is_null());
}

TEST_F(SendStream, STREAM_15_another_file_under_a_name_used_before_is_sent) {
  const Serving server(folder.path(), {"--grpc-listen", "127.0.0.1:0"});
  const std::string line = R"({"collection":"bulk","key":"k0","delta":)";
  write("monday.jsonl", line + "1}\n" + line + "1}\n");
  write("tuesday.jsonl", line + "10}\n");
  for (const char* const file : {"monday.jsonl", "tuesday.jsonl", "monday.jsonl"}) {
    const Ran ran = send(server, {file, "kv.add", "--id", "nightly"});
    EXPECT_EQ(ran.status, 0) << ran.err;
  }
  EXPECT_EQ(row(server, "k0")["number"], 12) << "each file once";
}

TEST_F(SendStream, STREAM_15_what_is_said_of_many_lines_is_said_once) {
  const Serving server(folder.path(), {"--grpc-listen", "127.0.0.1:0"});
  write("bad.jsonl", "{\"name\":\"no.such\"}\n{\"name\":\"no.such\"}\n{\"name\":\"no.such\"}\n");
  const Ran ran = send(server, {"bad.jsonl"});
  EXPECT_EQ(ran.status, 1) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("the same of 2 more lines"));
  EXPECT_THAT(ran.out, Not(HasSubstr("line 2: ")));
}

TEST_F(SendStream, STREAM_15_lines_that_name_their_commands_and_lines_that_fail) {
  const Serving server(folder.path(), {"--grpc-listen", "127.0.0.1:0"});
  write("mixed.jsonl",
        "\xEF\xBB\xBF{\"name\":\"kv.put\",\"payload\":{\"collection\":\"bulk\",\"key\":\"a\",\"value\":{\"amount\":10.10}},"
        "\"ordering_key\":\"a\"}\r\n\n"
        R"({"name":"kv.add","payload":{"collection":"bulk","key":"b","delta":-5,"floor":0},"ordering_key":"b"})" "\n"
        R"({"name":"no.such","ordering_key":"c"})" "\n"
        R"({"name":"kv.add","version":1,"idempotency_key":"own","payload":{"collection":"bulk","key":"b","delta":7}})");
  const Ran ran = send(server, {"mixed.jsonl"});
  EXPECT_EQ(ran.status, 1) << ran.out << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("4 of 4 messages are done: 2 succeeded"));
  EXPECT_THAT(ran.out, HasSubstr("line 3: "));
  EXPECT_THAT(ran.out, HasSubstr("line 4: "));
  EXPECT_THAT(ran.out, HasSubstr("no.such"));
  EXPECT_EQ(row(server, "b")["number"], 7);
  EXPECT_EQ(row(server, "a")["value"]["amount"].dump(), "10.1");
}

TEST_F(SendStream, STREAM_15_a_wrong_line_is_told_before_anything_is_sent) {
  const Serving server(folder.path(), {"--grpc-listen", "127.0.0.1:0"});
  const std::string good = R"({"collection":"bulk","key":"k0","delta":1})" "\n";
  const std::vector<std::pair<std::string, std::string>> wrong{
      {good + "{\"collection\":}\n", "bad.jsonl:2: column 15"},
      {good + "[1,2]\n", "bad.jsonl:2: expected an object"},
      {good + "\n\n{\"key\":{}}\n", "bad.jsonl:4: the payload has no text or number 'key' to order by"},
      {"\n\n", "empty lines only"},
      {"", "bad.jsonl is empty"}};
  for (const auto& [text, expected] : wrong) {
    write("bad.jsonl", text);
    const Ran ran = send(server, {"bad.jsonl", "kv.add", "--order-by", "key"});
    EXPECT_EQ(ran.status, 2) << ran.err;
    EXPECT_THAT(ran.err, HasSubstr(expected));
  }
  for (const auto& [text, expected] : std::vector<std::pair<std::string, std::string>>{
           {R"({"payload":{}})", "no command"},
           {R"({"name":"kv.add","paylod":{}})", "unknown field 'paylod'"},
           {R"({"name":"kv.add","payload":[1]})", "field 'payload': expected an object"},
           {R"({"name":"kv.add","version":"1"})", "field 'version': expected a whole number"},
           {R"({"name":7})", "field 'name': expected a text"}}) {
    write("bad.jsonl", text);
    const Ran ran = send(server, {"bad.jsonl"});
    EXPECT_EQ(ran.status, 2) << ran.err;
    EXPECT_THAT(ran.err, HasSubstr(expected));
  }
  EXPECT_TRUE(row(server, "k0").is_null());
  EXPECT_EQ(send(server, {"absent.jsonl", "kv.add"}).status, 2);
  const Ran both = send(server, {"bad.jsonl", "kv.add", "{}"});
  EXPECT_EQ(both.status, 2) << "a body and a file";
}

TEST_F(SendStream, STREAM_15_a_server_that_is_killed_in_the_middle_loses_and_doubles_nothing) {
  constexpr int kRows = 6000;
  write_rows(kRows);
  Arguments listen{"--grpc-listen", "127.0.0.1:0"};
  auto server = std::make_unique<Serving>(folder.path(), listen);
  listen[1] = server->grpc();
  const std::string token = server->token();
  const int out = open(folder.file("client.out").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  const int err = open(folder.file("client.err").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  const pid_t client = spawn(folder.path(),
                             {"send", "kv.add", "--stream", "rows.jsonl", "--order-by", "key", "--json", "--grpc",
                              server->grpc(), "--token", token},
                             {}, out, err);
  close(out);
  close(err);
  int kills = 0;
  for (int least = 5; kills < 3; ++kills, least += 60) {
    while (true) {  // until it is in the middle
      const json now = row(*server, "k0");
      if (now.is_object() && now["number"] >= least) break;
    }
    server->crash();
    server = std::make_unique<Serving>(folder.path(), listen, Settings{{"SLUICE_TOKEN", token}});
    ASSERT_FALSE(server->address().empty()) << read_file(folder.file("server.err"));
    server->use_token(token);
  }
  int status = 0;
  waitpid(client, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0) << read_file(folder.file("client.err"));
  const json told = json::parse(read_file(folder.file("client.out")));
  EXPECT_EQ(told["done"], kRows);
  EXPECT_EQ(told["succeeded"], kRows);
  EXPECT_GT(told["connections"], kills);
  expect_once_each(*server, kRows);
}

// Batches of vouchers, one a line: what users get are the codes, so they must come out.
TEST_F(SendStream, STREAM_15_vouchers_of_a_killed_server_have_each_one_code_and_results_tell_them) {
  constexpr int kBatches = 400, kItems = 4, kBeat = 10;
  {
    std::ofstream vouchers(folder.file("vouchers.csv")), codes(folder.file("codes.csv")), users(folder.file("users.csv")),
        batches(folder.file("batches.jsonl"));
    vouchers << "id,name,region,from,to,value_minor,currency,stock,user_quota,day_quota,budget_minor\n"
                "ten,Ten,ALL,2020-01-01T00:00:00Z,2120-01-01T00:00:00Z,10,EUR,5000,1,5000,5000000\n";
    codes << "voucher,code\n";
    users << "id,region\n";
    for (int i = 0; i < kBatches * kItems + 50; ++i) codes << "ten,CODE-" << 10'000 + i << '\n';
    for (int i = 0; i < kBatches; ++i) {
      if (i % kBeat == 0) batches << R"({"name":"kv.add","payload":{"collection":"bulk","key":"beat","delta":1}})" << '\n';
      batches << R"({"name":"voucher.ss.distribution.batch_distribute_voucher","payload":{"request_id":"b)" << i << R"(","region":"DE","items":[)";
      for (int k = 0; k < kItems; ++k) {
        const std::string user = "u" + std::to_string(i * kItems + k);
        if (i != 77) users << user << ",DE\n";  // one batch of users that are not known
        batches << (k == 0 ? "" : ",") << R"({"user":")" << user << R"(","voucher":"ten"})";
      }
      batches << "]}}\n";
    }
  }
  for (const char* const what : {"vouchers", "codes", "users"}) {
    const Ran ran = run(folder.path(), {"voucher", "import", what, std::string(what) + ".csv"});
    ASSERT_EQ(ran.status, 0) << ran.err;
  }
  Arguments listen{"--grpc-listen", "127.0.0.1:0"};
  auto server = std::make_unique<Serving>(folder.path(), listen);
  listen[1] = server->grpc();
  const std::string token = server->token();
  const Arguments command{"send", "--stream", "batches.jsonl", "--any-order", "--window", "20", "--results", "codes.jsonl", "--grpc", server->grpc(), "--token", token};
  const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  const pid_t client = spawn(folder.path(), command, {}, null, null);
  close(null);
  while (true) {  // until it is in the middle
    const json beat = row(*server, "beat");
    if (beat.is_object() && beat["number"] >= 3) break;
  }
  server->crash();
  int status = 0;
  ASSERT_EQ(waitpid(client, &status, WNOHANG), 0) << "it was not in the middle";
  server = std::make_unique<Serving>(folder.path(), listen, Settings{{"SLUICE_TOKEN", token}});
  server->use_token(token);
  waitpid(client, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  const std::string first = read_file(folder.file("codes.jsonl"));
  const Ran again = run(folder.path(), command);  // the file is sent again
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(read_file(folder.file("codes.jsonl")), first) << "the same codes are told";
  std::set<std::string> codes;
  std::istringstream lines(first);
  int line = 0, batch = 0;
  for (std::string text; std::getline(lines, text);) {
    const json one = json::parse(text);
    ASSERT_EQ(one["line"], ++line);
    ASSERT_EQ(one["outcome"], "succeeded") << text;
    if (one["reply"].contains("added")) continue;
    ASSERT_EQ(one["reply"]["request_id"], "b" + std::to_string(batch));
    for (const auto& item : one["reply"]["results"]) {
      ASSERT_EQ(item["status"], batch == 77 ? "refused" : "issued") << text;
      if (batch != 77) EXPECT_TRUE(codes.insert(item["code"].get<std::string>()).second) << item["code"];
    }
    ++batch;
  }
  EXPECT_EQ(batch, kBatches);
  EXPECT_EQ(row(*server, "beat")["number"], kBatches / kBeat);
  EXPECT_EQ(codes.size(), static_cast<std::size_t>((kBatches - 1) * kItems));
}

TEST_F(SendStream, STREAM_15_what_cannot_be_sent_is_told_with_its_line_and_what_to_do) {
  const Serving server(folder.path(), {"--grpc-listen", "127.0.0.1:0"});
  const std::string good = R"({"collection":"bulk","key":"k0","delta":1})" "\n";
  write("long.jsonl", good + "\n" + good + R"({"collection":"bulk","key":")" + std::string(3 << 20, 'x') + "\"}\n" + good);
  const Ran ran = send(server, {"long.jsonl", "kv.add"});
  EXPECT_EQ(ran.status, 1) << ran.err;
  EXPECT_THAT(ran.err, HasSubstr("It is line 4 of long.jsonl"));
  ASSERT_EQ(mkfifo(folder.file("pipe").c_str(), 0600), 0);
  const Ran pipe = send(server, {"pipe", "kv.add"});
  EXPECT_EQ(pipe.status, 2) << pipe.err;
  EXPECT_THAT(pipe.err, HasSubstr("a pipe cannot be sent: it is read twice"));
  write("rows.jsonl", good);
  const Ran nobody = run(folder.path(), {"send", "kv.add", "--stream", "rows.jsonl", "--grpc", server.grpc()});
  EXPECT_EQ(nobody.status, 1) << nobody.err;
  EXPECT_THAT(nobody.err, HasSubstr("--token or SLUICE_TOKEN"));
}

TEST_F(SendStream, CONSOLE_9_on_a_terminal_what_is_done_is_told_before_the_end) {
  const Serving server(folder.path(), {"--grpc-listen", "127.0.0.1:0"});
  write_rows(4000);
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  ASSERT_EQ(grantpt(terminal), 0);
  ASSERT_EQ(unlockpt(terminal), 0);
  const int screen = open(ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
  const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  const pid_t client = spawn(folder.path(), {"send", "kv.add", "--stream", "rows.jsonl", "--order-by", "key", "--grpc", server.grpc()},
                             server.settings(), null, screen);
  close(screen);
  close(null);
  std::string shown;
  char piece[4096];
  for (ssize_t got; (got = read(terminal, piece, sizeof piece)) > 0;) shown.append(piece, static_cast<std::size_t>(got));
  close(terminal);
  int status = 0;
  waitpid(client, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0) << shown;
  int between = 0;
  for (std::size_t at = shown.find(" of 4000 done"); at != std::string::npos; at = shown.find(" of 4000 done", at + 1)) {
    const auto begin = shown.rfind('\r', at);
    const int done = std::atoi(shown.c_str() + (begin == std::string::npos ? 0 : begin + 1));
    if (done > 0 && done < 4000) ++between;
  }
  EXPECT_GE(between, 2) << shown;
}

TEST_F(SendStream, STREAM_15_ctrl_c_stops_and_the_same_command_goes_on) {
  constexpr int kRows = 4000;
  write_rows(kRows);
  const Serving server(folder.path(), {"--grpc-listen", "127.0.0.1:0"});
  const Arguments command{"send", "kv.add", "--stream", "rows.jsonl", "--order-by", "key", "--grpc", server.grpc(),
                          "--window", "100"};
  const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  const pid_t client = spawn(folder.path(), command, server.settings(), null, null);
  close(null);
  while (row(server, "k0").is_null()) {
  }
  kill(client, SIGINT);
  int status = 0;
  waitpid(client, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 4);
  EXPECT_LT(row(server, "k0")["number"], kRows / kKeys) << "it was not in the middle";
  const Ran rest = server.ask(command);
  EXPECT_EQ(rest.status, 0) << rest.err;
  EXPECT_THAT(rest.out, HasSubstr("4000 of 4000 messages are done: 4000 succeeded"));
  expect_once_each(server, kRows);
}

TEST_F(SendStream, CONSOLE_9_a_door_that_is_none_is_told_at_once_and_as_what_it_is) {
  write_rows(20);
  for (const char* const bad : {"", "http://127.0.0.1:9090", "127.0.0.1", "127.0.0.1:", ":9090", "127.0.0.1:99999"}) {
    const Ran ran = run(folder.path(), {"send", "kv.add", "--stream", "rows.jsonl", "--grpc", bad, "--token", "slc_x"});
    EXPECT_EQ(ran.status, 2) << bad << ran.err;
    EXPECT_THAT(ran.err, HasSubstr("expected HOST:PORT"));
  }
  const Serving server(folder.path(), {"--grpc-listen", "127.0.0.1:0"});
  const Ran tls = send(server, {"rows.jsonl", "kv.add", "--tls", "--give-up", "1"});
  EXPECT_EQ(tls.status, 1) << tls.err;
  EXPECT_THAT(tls.err, HasSubstr("leave --tls out"));
  EXPECT_THAT(tls.err, Not(HasSubstr("Start the server")));
  const Ran post = run(folder.path(), {"send", "kv.add", "{}", "--key", "a", "--server", "http://" + server.grpc(), "--token", "slc_x"});
  EXPECT_EQ(post.status, 1) << post.err;
  EXPECT_THAT(post.err, HasSubstr("is no HTTP door; is it the gRPC one?"));
  EXPECT_THAT(post.err, Not(HasSubstr("taken effect")));
  for (const Arguments& more : {Arguments{"{}"}, Arguments{"--stream", "rows.jsonl", "--grpc", server.grpc()}}) {
    Arguments all{"send", "kv.add", "--token", server.token() + "\n", "--server", server.address()};
    all.insert(all.end(), more.begin(), more.end());
    const Ran ended = run(folder.path(), all);
    EXPECT_EQ(ended.status, 2) << ended.err;
    EXPECT_THAT(ended.err, HasSubstr("the token has a line end"));
  }
  const std::string help = run(folder.path(), {"send", "--help"}).out;
  EXPECT_THAT(help, HasSubstr("--grpc TEXT=127.0.0.1:9090"));
  EXPECT_THAT(help, HasSubstr("=60"));
}

TEST_F(SendStream, STREAM_15_a_server_that_is_not_there_and_a_token_that_is_none) {
  write_rows(20);
  const Ran nobody = run(folder.path(), {"send", "kv.add", "--stream", "rows.jsonl", "--grpc", "127.0.0.1:1",
                                         "--give-up", "1", "--token", "slc_x"});
  EXPECT_EQ(nobody.status, 1) << "nothing was sent";
  EXPECT_THAT(nobody.err, HasSubstr("127.0.0.1:1"));
  EXPECT_THAT(nobody.err, HasSubstr("sluice serve --grpc-listen"));
  const Serving server(folder.path(), {"--grpc-listen", "127.0.0.1:0"});
  const Ran wrong = run(folder.path(), {"send", "kv.add", "--stream", "rows.jsonl", "--grpc", server.grpc(), "--token", "slc_x"});
  EXPECT_EQ(wrong.status, 1) << wrong.err;
  EXPECT_THAT(wrong.err, HasSubstr("unauthenticated"));
}

}  // namespace
}  // namespace sluice::cli_test
